"""Child workflows under kill -9: a resumed parent finds them where they were.

PERDURE_TEST_SEED repeats the moments.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path

import pytest
from chaos.bare import NAMESPACE
from chaos.mortal import Mortal, forkserver
from redis.asyncio import Redis

KILLS = 60
COUNT = 4
LONGEST_LIFE = 0.35  # seconds


def published(run: Mortal) -> list[str]:
    """What readers outside were shown."""

    async def ask() -> list[str]:
        client = Redis.from_url(run.url)
        entries = await client.xrange(f"perdure:{NAMESPACE}:{{{run.uid}}}:events")
        await client.aclose()
        return [json.loads(fields[b"event"])["value"]["text"] for _, fields in entries]

    return asyncio.run(ask())


def check(run: Mortal) -> int:
    """How many parts were done twice: each was cut off between what it did and its record."""
    outcome = run.outcome()
    assert outcome is not None
    single, several = ([f"{kind}{n}" for n in range(COUNT)] for kind in ("single", "several"))
    assert (outcome.reason, outcome.result) == ("Completed", [single + several, [0, 1, 2, 3, 4]])
    recorded: set[str] = set()
    done: list[str] = []
    for line in (run.folder / "notes").read_text().splitlines():
        _, what, part = line.split()
        if what == "recorded":
            recorded.add(part)
        else:
            assert part not in recorded, f"{part} was done again after it was recorded"
            done.append(part)
    assert published(run) == [f"{name} is {how}" for name in single for how in ("half done", "done")]
    return len(done) - len(set(done))


@pytest.mark.timeout(600)
def test_nothing_of_a_child_is_lost_and_nothing_is_doubled(redis_url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("PERDURE_TEST_SEED", time.time_ns() % 10**9))
    print(f"PERDURE_TEST_SEED={seed}")
    moments = random.Random(seed)
    lives = forkserver()
    kills = runs = twice = 0
    while kills < KILLS:
        folder = tmp_path / str(runs)
        folder.mkdir()
        run = Mortal(
            redis_url,
            folder,
            "parents:RunsChildren",
            lease=10,
            notes=str(folder / "notes"),
            count=COUNT,
            pause=0.04,
        )
        run.lives, run.epoch = lives, 1
        runs += 1
        # The last life of a run is as long as it takes.
        while run.spend(moments.uniform(0, LONGEST_LIFE) if kills < KILLS else None):
            kills += 1
            run.take_over()
        twice += check(run)
    print(f"{kills} kills, {runs} runs, {twice} parts done twice")
