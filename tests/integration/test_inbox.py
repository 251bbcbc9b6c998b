"""Events from outside a durable run, on a real Redis: taken once, in order, whoever holds the run meanwhile."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from perdure import Checkpoint, Context, Workflow, program, step
from perdure.errors import InboxFullError, RunEndedError, StateLostError, WorkflowRuntimeError
from perdure.events import Event, HumanResponseEvent, StartEvent, StopEvent
from perdure.inbox import Inbox, message, send_event, send_message
from perdure.program import reopen
from perdure.store import dump, held
from perdure.store.base import INBOX_BYTES
from perdure.store.records import input_record
from perdure.store.redis import RedisStore


class Parcel(HumanResponseEvent):
    number: int


class Signature(Event):
    by: str


class Depot(Workflow):
    """Takes parcels until there are enough, then waits for a signature."""

    @step
    async def open(self, ctx: Context, ev: StartEvent) -> None:
        await ctx.store.set("enough", ev.enough)

    @step(num_workers=1)
    async def take(self, ctx: Context, parcel: Parcel) -> StopEvent | None:
        await ctx.store.append("got", parcel.number)
        got = await ctx.store.get("got")
        if len(got) < await ctx.store.get("enough"):
            return None
        signature = await ctx.wait_for_event(Signature)
        return StopEvent(result=[got, signature.by])


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LEASE_SECONDS", 3.0)  # a renewal is what tells of an event


def on_redis(url: str, scenario: Callable[[RedisStore, str], Awaitable[None]]) -> None:
    async def go() -> None:
        store = RedisStore.from_url(url)
        try:
            await scenario(store, secrets.token_hex(4))
        finally:
            await store.close()

    asyncio.run(go())


def test_events_reach_a_live_run_once_each_and_in_order(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        handler = Depot().run(run_id=run_id, store=store, enough=3)
        await handler._live()
        for number in range(3):
            for _ in range(2):  # a sender that lost its reply
                await send_event(store, run_id, Parcel(number=number), event_id=f"parcel-{number}")
        await send_event(store, run_id, Signature(by="Ann"))
        assert await handler == [[0, 1, 2], "Ann"]
        facts = await store.run("local", run_id).facts()
        assert facts.inbox_pending == 0

    on_redis(redis_url, scenario)


def test_events_that_came_before_anybody_held_the_run_or_waited_are_delivered(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        await store.run("local", run_id).init(input_record({"enough": 1}))
        await send_event(store, run_id, Signature(by="Early"))
        await send_event(store, run_id, Parcel(number=7))
        assert await Depot().run(run_id=run_id, store=store) == [[7], "Early"]

    on_redis(redis_url, scenario)


def test_what_a_holder_took_its_successor_does_not_take_again(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        run = store.run("local", run_id)
        await run.init(input_record({"enough": 2}))
        await send_event(store, run_id, Parcel(number=1), event_id="one")
        first = Depot().run(run_id=run_id, store=store)
        while (await run.facts()).inbox_pending:
            await asyncio.sleep(0.02)
        await run.advance(2, "LeaseExpired")
        second = Depot().run(run_id=run_id, store=store)
        await second._live()
        await send_event(store, run_id, Parcel(number=1), event_id="one")
        await send_event(store, run_id, Parcel(number=2), event_id="two")
        await send_event(store, run_id, Signature(by="Bo"))
        assert await second == [[1, 2], "Bo"]
        await asyncio.wait([first._opening])
        (await first._live()).loop.stop(None, None)

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("Package", b"{}", "no event type 'Package' is known to this workflow; its steps take Parcel"),
        ("os:system", b"{}", "no event type 'os:system'"),
        ("Parcel", b"{", "its data is not JSON"),
        ("Parcel", b"[1]", "its data is a JSON list, not an object of Parcel's fields"),
        ("Parcel", b'{"number": "secret"}', "doesn't fit Parcel: number: Input should be a valid integer"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_and_the_next_ones_are_taken(
    redis_url: str, caplog: pytest.LogCaptureFixture, kind: str, data: bytes, why: str
) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        run = store.run("local", run_id)
        await run.init(input_record({"enough": 1}))
        await send_message(run, run_id, message(kind, data))
        await send_event(store, run_id, Parcel(number=1))
        await send_event(store, run_id, Signature(by="Cy"))
        assert await Depot().run(run_id=run_id, store=store) == [[1], "Cy"]
        assert (await run.facts()).inbox_pending == 0

    on_redis(redis_url, scenario)
    assert why in caplog.text
    assert "secret" not in caplog.text, "what events hold is nobody's to read in a log"


def test_large_events_make_no_record_too_large(redis_url: str) -> None:
    class Heavy(HumanResponseEvent):
        text: str

    class Weighs(Workflow):
        @step
        async def open(self, ctx: Context, ev: StartEvent) -> None:
            await ctx.store.set("seen", 0)

        @step(num_workers=1)
        async def take(self, ctx: Context, ev: Heavy) -> StopEvent | None:
            seen = await ctx.store.get("seen") + 1
            await ctx.store.set("seen", seen)
            return StopEvent(result=seen) if seen == 20 else None

    async def scenario(store: RedisStore, run_id: str) -> None:
        run = store.run("local", run_id)
        await run.init(input_record({}))
        await send_event(store, run_id, Heavy(text="y" * 2_000_000))
        for _ in range(20):
            await send_event(store, run_id, Heavy(text="x" * 400_000))
        # Together they are more than a record may hold, and the first alone is more than its share.
        limit = Checkpoint(max_bytes=4_000_000)
        assert await Weighs().run(run_id=run_id, store=store, checkpoint=limit) == 20

    on_redis(redis_url, scenario)


def test_a_sender_is_told_what_became_of_its_event(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        with pytest.raises(StateLostError, match=f"knows no run {run_id}"):
            await send_event(store, run_id, Parcel(number=1))
        run = store.run("local", run_id)
        await run.init(input_record({"enough": 1}))
        assert await send_event(store, run_id, Parcel(number=1), event_id="a") == 1
        assert await send_event(store, run_id, Parcel(number=1), event_id="a") == 0
        with pytest.raises(InboxFullError, match="1 events wait"):
            await send_message(run, run_id, message("Parcel", b"x" * INBOX_BYTES))
        with pytest.raises(ValueError, match="an inbox takes"):
            message("Parcel", b"x" * (INBOX_BYTES + 1))
        with pytest.raises(ValueError, match="an event's id"):
            message("Parcel", b"{}", "")
        await run.finish(2, b'{"reason":"Cancelled"}')
        with pytest.raises(RunEndedError):
            await send_event(store, run_id, Parcel(number=2))

    on_redis(redis_url, scenario)


def test_a_persons_answer_comes_by_the_events_short_name(redis_url: str) -> None:
    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(HumanResponseEvent)
            return StopEvent(result=answer.said)

    async def scenario(store: RedisStore, run_id: str) -> None:
        run = store.run("local", run_id)
        await run.init(input_record({}))
        await send_message(run, run_id, message("HumanResponseEvent", b'{"said":"yes"}'))
        assert await Asks().run(run_id=run_id, store=store) == "yes"

    on_redis(redis_url, scenario)


# --- a failed run taken up again ------------------------------------------------------------------------


class Fragile(Workflow):
    broken = True
    ran: list[str]

    @step
    async def prepare(self, ctx: Context, ev: StartEvent) -> Parcel:
        type(self).ran.append("prepare")
        await ctx.store.set("prepared", True)
        return Parcel(number=5)

    @step
    async def deliver(self, ctx: Context, parcel: Parcel) -> StopEvent:
        type(self).ran.append("deliver")
        if type(self).broken:
            raise RuntimeError("no road")
        return StopEvent(result=[parcel.number, await ctx.store.get("prepared")])


def test_a_reopened_run_starts_at_the_step_that_failed_it(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        Fragile.ran, Fragile.broken = [], True
        with pytest.raises(RuntimeError, match="no road"):
            await Fragile().run(run_id=run_id, store=store)
        with pytest.raises(WorkflowRuntimeError, match="StepFailed"):
            await Fragile().run(run_id=run_id, store=store)
        await reopen(store, run_id)
        with pytest.raises(RuntimeError, match="no road"):
            await Fragile().run(run_id=run_id, store=store)
        assert Fragile.ran == ["prepare", "deliver", "deliver"]
        Fragile.broken = False
        await reopen(store, run_id)
        assert await Fragile().run(run_id=run_id, store=store) == [5, True]
        assert Fragile.ran == ["prepare", "deliver", "deliver", "deliver"]
        with pytest.raises(WorkflowRuntimeError, match="ended as Completed, which is final"):
            await reopen(store, run_id)

    on_redis(redis_url, scenario)


def test_only_a_run_that_has_ended_is_reopened(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        with pytest.raises(StateLostError, match=f"knows no run {run_id}"):
            await reopen(store, run_id)
        await store.run("local", run_id).init(input_record({}))
        with pytest.raises(WorkflowRuntimeError, match="has not ended: run it again"):
            await reopen(store, run_id)

    on_redis(redis_url, scenario)


# --- a store that went back -----------------------------------------------------------------------------


def test_an_event_that_a_store_forgot_it_had_given_away_is_not_taken_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "KEEP_SECONDS", 60.0)  # of a slow machine's test

    async def scenario(store: RedisStore, run_id: str) -> None:
        run = store.run("local", run_id)
        handler = Depot().run(run_id=run_id, store=store, enough=3)
        await handler._live()
        while (await run.facts()).meta.seq < 3:  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Inbox, "look", lambda *_: None)  # not yet
            await send_event(store, run_id, Parcel(number=1), event_id="one")
            before = await dump.read(store, "local", run_id)
        assert before is not None and len(before.inbox) == 1
        while (await run.facts()).inbox_pending:
            await asyncio.sleep(0.02)
        # As after a crash that took its last second: log and inbox go back together.
        await run.clean()
        assert await dump.write(store, "local", run_id, before)
        await send_event(store, run_id, Parcel(number=2), event_id="two")
        await send_event(store, run_id, Parcel(number=3), event_id="three")
        await send_event(store, run_id, Signature(by="Di"))
        assert await handler == [[1, 2, 3], "Di"]

    on_redis(redis_url, scenario)
