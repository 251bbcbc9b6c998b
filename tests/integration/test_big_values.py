"""Values of many MiB on a real Redis: kept and resumed up to the limit; over it the run ends and Redis has nothing of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable

import pytest

from perdure import Checkpoint, Context, Workflow, step
from perdure.errors import CheckpointTooLargeError, LeaseLostError
from perdure.events import Event, StartEvent, StopEvent
from perdure.store.redis import RedisStore

MIB = 1024 * 1024


def text(mib: float, seed: str) -> str:
    """Not the same everywhere, so that a part in the wrong place shows."""
    block = "".join(hashlib.sha256(f"{seed}{n}".encode()).hexdigest() for n in range(1024))
    return (block * (int(mib * MIB) // len(block) + 1))[: int(mib * MIB)]


def on_redis(url: str, scenario: Callable[[RedisStore, str], Awaitable[None]]) -> None:
    async def go() -> None:
        store = RedisStore.from_url(url)
        run_id = secrets.token_hex(4)
        try:
            await scenario(store, run_id)
        finally:
            await store.run("local", run_id).clean()
            await store.close()

    asyncio.run(go())


class Middle(Event):
    pass


class Keeps(Workflow):
    """Writes a large value, then stops at a point where a successor takes over."""

    reached: asyncio.Event

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Middle:
        await ctx.store.set("large", text(ev.mib, "first"))
        await ctx.store.set("small", 1)
        return Middle()

    @step
    async def check(self, ctx: Context, ev: Middle) -> StopEvent:
        for number in range(10):
            await ctx.store.set("number", number)  # a snapshot is cut meanwhile
        type(self).reached.set()
        if await ctx.store.get("go", default=None) is None:
            await ctx.store.set("go", True)
            await asyncio.sleep(60)
        large = await ctx.store.get("large")
        return StopEvent(result=[len(large), hashlib.sha256(large.encode()).hexdigest()])


@pytest.mark.parametrize("mib", [1, 16, 63.9])
def test_a_large_value_is_kept_cut_into_a_snapshot_and_resumed(redis_url: str, mib: float) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        Keeps.reached = asyncio.Event()
        run = store.run("local", run_id)
        first = Keeps().run(run_id=run_id, store=store, mib=mib)
        await asyncio.wait([asyncio.ensure_future(Keeps.reached.wait()), first._opening])
        while (meta := (await run.facts()).meta) is None or meta.base < 0:
            await asyncio.sleep(0.05)
        await run.advance(2, "LeaseExpired")
        expected = text(mib, "first")
        digest = hashlib.sha256(expected.encode()).hexdigest()
        assert await Keeps().run(run_id=run_id, store=store, mib=mib) == [len(expected), digest]
        with pytest.raises(LeaseLostError):
            await first

    on_redis(redis_url, scenario)


class Grows(Workflow):
    """how: which of the things that are kept becomes too large. The outcome has the result twice."""

    @step
    async def grow(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.store.set("before", "kept")
        if ev.how == "value":
            await ctx.store.set("large", text(3, "x"))
        elif ev.how == "snapshot":
            for number in range(40):
                await ctx.store.append("parts", text(0.25, str(number)))
        elif ev.how == "event":
            ctx.write_event_to_stream(Large(text=text(3, "x")))
            await ctx.checkpoint()
        elif ev.how == "events":
            for _ in range(4):
                ctx.write_event_to_stream(Large(text=text(0.7, "x")))
            await ctx.checkpoint()
        size = {"result": 3.0, "outcome": 1.5}.get(ev.how)
        return StopEvent(result=text(size, "x") if size else "small")


class Large(Event):
    text: str


@pytest.mark.parametrize("how", ["value", "snapshot", "event", "events", "result", "outcome"])
def test_over_the_limit_the_run_ends_and_nothing_of_it_was_sent(redis_url: str, how: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        run = store.run("local", run_id)
        with pytest.raises(
            CheckpointTooLargeError, match=r"over checkpoint.maxBytes \(2097152\): raise that"
        ):
            await Grows().run(run_id=run_id, store=store, checkpoint=Checkpoint(max_bytes=2 * MIB), how=how)
        facts = await run.facts()
        assert facts.meta is not None and facts.meta.outcome is not None
        assert json.loads(facts.meta.outcome)["reason"] == "CheckpointTooLarge"
        assert facts.lease is None
        loaded = await run.load()
        assert loaded is not None
        assert max(len(part) for part in [loaded.snapshot or b"", *loaded.records]) <= 2 * MIB
        assert facts.meta.log_bytes + facts.meta.snapshot_bytes <= 6 * MIB

    on_redis(redis_url, scenario)


def test_a_run_that_was_too_large_can_be_taken_up_with_a_higher_limit(
    redis_url: str,
) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        with pytest.raises(CheckpointTooLargeError):
            await Grows().run(
                run_id=run_id, store=store, checkpoint=Checkpoint(max_bytes=2 * MIB), how="value"
            )
        assert (await store.run("local", run_id).reopen(2, 1)).ok
        assert (
            await Grows().run(
                run_id=run_id, store=store, checkpoint=Checkpoint(max_bytes=8 * MIB), how="value"
            )
            == "small"
        )

    on_redis(redis_url, scenario)
