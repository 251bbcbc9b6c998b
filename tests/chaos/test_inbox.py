"""Events from outside while the runners that take them die: each is taken, and by one invocation alone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
from chaos.test_kills_by_the_hundred import Mortal

from perdure.inbox import message
from perdure.store.redis import RedisStore

COUNT = 1200  # long enough to be killed several times on a quick machine


async def send_all(url: str, uid: str) -> None:
    store = RedisStore.from_url(url)
    run = store.run("chaos", uid)
    for number in range(COUNT):
        for _ in range(2):  # a sender whose reply was lost
            assert (
                await run.send(message("Parcel", f'{{"number":{number}}}'.encode(), f"parcel-{number}"))
            ).ok
    await store.close()


@pytest.mark.timeout(300)
def test_events_are_taken_once_through_kills(redis_url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("PERDURE_TEST_SEED", time.time_ns() % 10**9))
    print(f"PERDURE_TEST_SEED={seed}")
    moments = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["perdure.runner.child"])
    run = Mortal(redis_url, tmp_path, "habits:TakesParcels", lease=10, notes="", count=COUNT)
    run.lives = context
    run.epoch = 1
    try:
        asyncio.run(send_all(redis_url, run.uid))
        kills = 0
        while run.spend(moments.uniform(0.1, 0.4)):
            kills += 1
            run.take_over()
        outcome = run.outcome()
        assert outcome is not None and outcome.reason == "Completed"
        assert outcome.result == list(range(COUNT))
        assert kills >= 3, "it ended before it could be killed"
        assert run.facts().inbox_pending == 0
    finally:
        run.close()
