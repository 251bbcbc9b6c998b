"""A snapshot takes the log's place while commits go on, on a real Redis: at every moment what is read is all of it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable

import pytest

from perdure import Context, Workflow, step
from perdure.engine.journal import Batch
from perdure.events import StartEvent, StopEvent
from perdure.store import session as session_module
from perdure.store.records import check, frame_snapshot, input_record
from perdure.store.redis import RedisRunStore, RedisStore
from perdure.store.session import RunSession

NAMESPACE = "cuts"


def on_redis(url: str, scenario: Callable[[RedisStore, str], Awaitable[None]]) -> None:
    async def go() -> None:
        store = RedisStore.from_url(url)
        try:
            await scenario(store, secrets.token_hex(4))
        finally:
            await store.close()

    asyncio.run(go())


class Slow:
    """A run's keys whose cuts take their time in every place where a commit may come between."""

    def __init__(self, run: RedisRunStore, moments: random.Random) -> None:
        self._run = run
        self._moments = moments
        self.cuts = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._run, name)

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> object:
        await asyncio.sleep(self._moments.uniform(0, 0.02))
        answer = await self._run.cut(epoch, holder, seq, snapshot)
        if self._moments.random() < 0.3:  # a lost reply: the same cut again, after others
            await asyncio.sleep(self._moments.uniform(0, 0.02))
            answer = await self._run.cut(epoch, holder, seq, snapshot)
        self.cuts += 1
        return answer


async def all_of_it(store: RedisStore, uid: str) -> list[int]:
    """The numbers that snapshot and log hold, in their order."""
    loaded = await store.run(NAMESPACE, uid).load()
    assert loaded is not None
    snapshot, records = check(loaded)
    numbers = list(range(1, int(snapshot.split()[0]) + 1)) if snapshot is not None else []
    return numbers + [int(record.payload.split()[0]) for record in records if record.seq]


@pytest.mark.parametrize("seed", range(5))
def test_no_commit_is_lost_or_doubled_by_cuts_under_way(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(session_module, "SNAPSHOT_FLOOR", 400)

    async def scenario(store: RedisStore, uid: str) -> None:
        moments = random.Random(seed)
        run = store.run(NAMESPACE, uid)
        await run.init(input_record({}))
        slow = Slow(run, moments)
        session = RunSession(slow, epoch=1, holder="a")  # type: ignore[arg-type]
        await session.acquire(60_000)
        await session.load()
        confirmed = 0
        done = asyncio.Event()

        async def read() -> None:
            while not done.is_set():
                known = confirmed
                numbers = await all_of_it(store, uid)
                assert numbers == list(range(1, len(numbers) + 1))
                assert len(numbers) >= known
                await asyncio.sleep(0)

        reader = asyncio.ensure_future(read())
        for number in range(1, 801):
            payload = b"%d %s" % (number, b"x" * moments.randrange(40))
            snapshot = b"%d as of now" % number if session.wants_snapshot else None
            await session.commit(Batch(payload, snapshot=snapshot))
            confirmed = number
            if moments.random() < 0.05:
                await asyncio.sleep(moments.uniform(0, 0.01))
        await session.settle()
        done.set()
        await reader
        assert slow.cuts > 5
        assert await all_of_it(store, uid) == list(range(1, 801))

    on_redis(redis_url, scenario)


def test_a_cut_of_a_predecessor_that_comes_late_takes_nothing_of_its_successors(redis_url: str) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        run = store.run(NAMESPACE, uid)
        await run.init(input_record({}))
        first = RunSession(run, epoch=1, holder="a")
        await first.acquire(60_000)
        for number in (1, 2, 3):
            await first.commit(Batch(b"%d" % number))
        await run.advance(2, "LeaseExpired")
        second = RunSession(store.run(NAMESPACE, uid), epoch=2, holder="b")
        await second.acquire(60_000)
        await second.load()
        await second.commit(Batch(b"4"))
        late = await run.cut(1, "a", 3, frame_snapshot(3, 1, b"0 of a zombie"))
        assert not late.ok
        assert await all_of_it(store, uid) == [1, 2, 3, 4]

    on_redis(redis_url, scenario)


def test_the_tail_to_be_read_on_resume_is_bounded_however_long_the_run(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "SNAPSHOT_FLOOR", 8 * 1024)

    class Rolls(Workflow):
        @step
        async def roll(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for number in range(ev.count):
                await ctx.store.set("last", "x" * 200 + str(number))
            return StopEvent(result=ev.count)

    async def scenario(store: RedisStore, run_id: str) -> None:
        tails = {}
        for count in (200, 3000):
            uid = f"{run_id}-{count}"
            assert await Rolls().run(run_id=uid, store=store, count=count) == count
            loaded = await store.run("local", uid).load()
            assert loaded is not None and loaded.snapshot is not None
            tail = sum(map(len, loaded.records))
            # What triggers the next cut, and what came while the last one was on its way.
            assert tail <= 4 * max(8 * 1024, len(loaded.snapshot))
            tails[count] = tail + len(loaded.snapshot)
        assert tails[3000] <= tails[200] + 4 * 8 * 1024

    on_redis(redis_url, scenario)
