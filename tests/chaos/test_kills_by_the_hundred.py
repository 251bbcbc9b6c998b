"""500 times kill -9 at a random moment: what was committed is there, what wasn't runs again, nothing is doubled.

The runners are the real ones, forked from a process that has imported them, so that one dies every few
hundred milliseconds. PERDURE_TEST_SEED repeats the moments.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.bare import BareRun

KILLS = 500
COUNT = 400
LONGEST_LIFE = 0.3  # seconds


def life(environment: dict[str, str], log: str) -> None:
    """One runner, as `perdure-runner` is."""
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environment)
    from perdure.runner.main import main

    main()


@pytest.fixture(scope="module")
def lives() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["perdure.runner.child"])
    return context


class Mortal(BareRun):
    """A run whose runners are forked rather than started, and die of kill -9."""

    lives: multiprocessing.context.ForkServerContext

    def spend(self, seconds: float | None) -> bool:
        """One runner's life, of so many seconds or to its own end; whether it was killed."""
        environment = self.settings().to_env()
        runner = self.lives.Process(target=life, args=(environment, str(self.log)))
        runner.start()
        runner.join(seconds)
        killed = runner.is_alive()
        if killed:
            assert runner.pid is not None
            try:
                os.killpg(runner.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no session of its own yet
                runner.kill()
        runner.join(60)
        assert killed or runner.exitcode == 0, self.log.read_text()
        return killed


@pytest.fixture
def start(
    redis_url: str, tmp_path: Path, lives: multiprocessing.context.ForkServerContext
) -> Iterator[Callable[[], Mortal]]:
    made: list[Mortal] = []

    def start() -> Mortal:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        run = Mortal(
            redis_url,
            folder,
            "habits:FansOut",
            lease=10,
            notes=str(folder / "notes"),
            count=COUNT,
            pause=0.005,
        )
        run.lives = lives
        run.epoch = 1
        made.append(run)
        return run

    yield start
    for run in made:
        run.close()


def check(run: Mortal) -> int:
    """How many parts were done twice: each was cut off between what it did and its record."""
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.reason, outcome.result) == ("Completed", list(range(COUNT)))
    recorded: set[str] = set()
    done: list[str] = []
    for line in (run.folder / "notes").read_text().splitlines():
        _, what, number = line.split()
        if what == "recorded":
            recorded.add(number)
        else:
            assert number not in recorded, f"part {number} was done again after it was recorded"
            done.append(number)
    return len(done) - len(set(done))


@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_is_doubled(start: Callable[[], Mortal]) -> None:
    seed = int(os.environ.get("PERDURE_TEST_SEED", time.time_ns() % 10**9))
    print(f"PERDURE_TEST_SEED={seed}")
    moments = random.Random(seed)
    kills = runs = 0
    while kills < KILLS:
        run = start()
        runs += 1
        of_this = 0
        # The last life of a run is as long as it takes.
        while run.spend(moments.uniform(0, LONGEST_LIFE) if kills < KILLS else None):
            kills, of_this = kills + 1, of_this + 1
            run.take_over()
        assert check(run) <= 4 * of_this
    print(f"{kills} kills, {runs} runs")
