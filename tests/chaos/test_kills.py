"""kill -9 at random moments: every run ends right, and no committed document is converted again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.laptop import Laptop, some_documents, until

KILLS = 50
RUNS = 5
DOCUMENTS = 300
WORKERS = 4


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(
        tmp_path / "it", folder=str(some_documents(tmp_path / "docs", DOCUMENTS)), limit=DOCUMENTS, delay=0.1
    )
    yield made
    made.close()


def check(laptop: Laptop, status: int, printed: str, kills: int) -> None:
    assert status == 0, printed
    found = laptop.status()
    assert found["result"]["documents"] == DOCUMENTS
    assert found["result"]["failures"] == []
    converted, again = laptop.conversions()
    assert again == [], "documents were converted again though they were recorded"
    assert set(converted) == {f"document-{n:03}.txt" for n in range(DOCUMENTS)}
    twice = sum(count - 1 for count in converted.values())
    assert twice <= WORKERS * kills, f"{kills} kills made {twice} conversions more than {WORKERS} workers can"
    assert found["attempt"] == kills + 1, printed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(RUNS))
def test_kills_at_random_moments(laptop: Laptop, run: int) -> None:
    seed = int(os.environ.get("PERDURE_TEST_SEED", time.time_ns() % 10**9)) + run
    print(f"PERDURE_TEST_SEED={seed - run}")
    moments = random.Random(seed)
    laptop.start()
    for kill in range(KILLS // RUNS):
        until(lambda: laptop.runner() not in (None, *laptop.killed), what="a successor")
        if moments.random() < 0.2:
            time.sleep(moments.uniform(0.0, 1.0))  # while it starts, so that it may never have the run
        else:
            until(lambda: laptop.has_acquired() or not laptop.runs_still, what="a successor with the run")
            time.sleep(moments.uniform(0.0, 0.6))
        assert laptop.runs_still, f"the run ended after {kill} kills: give it more documents"
        laptop.kill_runner()
    status, printed = laptop.finish()
    check(laptop, status, printed, KILLS // RUNS)
