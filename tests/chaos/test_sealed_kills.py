"""kill -9 at random while snapshots are compressed and encrypted in a thread beside the commits."""

from __future__ import annotations

import base64
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
from chaos.test_kills_by_the_hundred import COUNT, Mortal, check

from perdure.runner.settings import RunnerSettings

KILLS = 40
KEYS = [f"k{n}:{base64.b64encode(bytes([n]) * 32).decode()}" for n in range(3)]


class Sealed(Mortal):
    """Each runner writes by another key, and has those of its predecessors."""

    def settings(self, through: str | None = None) -> RunnerSettings:
        first = self.epoch % len(KEYS)
        keys = ",".join(KEYS[first:] + KEYS[:first])
        update = {"compression": "Zstd", "encryption_keys": keys}
        return super().settings(through).model_copy(update=update)


@pytest.mark.timeout(300)
def test_a_sealed_run_loses_nothing_and_doubles_nothing(redis_url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("PERDURE_TEST_SEED", time.time_ns() % 10**9))
    print(f"PERDURE_TEST_SEED={seed}")
    moments = random.Random(seed)
    lives = multiprocessing.get_context("forkserver")
    lives.set_forkserver_preload(["perdure.runner.child"])
    kills = runs = 0
    while kills < KILLS:
        folder = tmp_path / str(runs)
        folder.mkdir()
        run = Sealed(
            redis_url,
            folder,
            "habits:FansOut",
            lease=10,
            notes=str(folder / "notes"),
            count=COUNT,
            pause=0.005,
        )
        run.lives, run.epoch = lives, 1
        of_this = 0
        runs += 1
        try:
            while run.spend(moments.uniform(0.1, 0.5) if kills < KILLS else None):
                kills, of_this = kills + 1, of_this + 1
                run.take_over()
            assert check(run) <= 4 * of_this
            assert run.facts().meta.base > 0, "no snapshot was cut"  # type: ignore[union-attr]
            loaded = run._ask(lambda store: store.load())
            assert loaded is not None
            assert not any(b"xxxxxxxx" in data for data in [loaded.snapshot or b"", *loaded.records])
        finally:
            run.close()
    print(f"{kills} kills, {runs} runs")
