"""500 times kill -9 at a random moment: what was committed is there, what wasn't runs again, nothing is doubled.

The runners are the real ones, forked from a process that has imported them, so that one dies every few
hundred milliseconds. PERDURE_TEST_SEED repeats the moments.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.mortal import Mortal, forkserver

KILLS = 500
COUNT = 400
LONGEST_LIFE = 0.3  # seconds


@pytest.fixture(scope="module")
def lives() -> multiprocessing.context.ForkServerContext:
    return forkserver()


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
