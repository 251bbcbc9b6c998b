"""What every store answers: in memory and on a real Redis alike."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis_server import RedisServer

from perdure.engine.journal import Batch
from perdure.errors import CheckpointCorruptError, StoreUnavailableError
from perdure.store.base import (
    INBOX_BYTES,
    INBOX_ENTRIES,
    Acquired,
    Commit,
    Message,
    Renewed,
    Reply,
    RunStore,
    Store,
    Tag,
)
from perdure.store.keys import RunKeys
from perdure.store.memory import MemoryStore
from perdure.store.records import check, digest, frame, frame_snapshot, input_record
from perdure.store.redis import RedisStore
from perdure.store.session import RunSession

NAMESPACE = "contract"
TTL = 10_000


class Case:
    """A fresh run in one of the stores."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.uid = uuid.uuid4().hex
        self.run: RunStore = store.run(NAMESPACE, self.uid)

    async def init(self) -> None:
        assert (await self.run.init(input_record({"n": 1}))).ok

    async def held(self, holder: str = "a", epoch: int = 1) -> Acquired:
        """Created and acquired."""
        await self.init()
        answer = await self.run.acquire(epoch, holder, TTL)
        assert isinstance(answer, Acquired)
        return answer

    async def commit(self, seq: int, *, epoch: int = 1, holder: str = "a", **fields: Any) -> Reply:
        return await self.run.commit(epoch, holder, commit(seq, epoch=epoch, **fields))

    async def arrive(self, event_id: str) -> None:
        """An event from outside."""
        if isinstance(self.store, MemoryStore):
            self.store.runs[NAMESPACE, self.uid].inbox.append((event_id, Message("", "", b"event")))
        else:
            assert isinstance(self.store, RedisStore)
            async with self.store.link() as link:
                await link.call("XADD", RunKeys.of(NAMESPACE, self.uid).inbox, event_id, "event", "e")

    async def meta(self) -> Any:
        return (await self.run.facts()).meta


def commit(seq: int, *, epoch: int = 1, payload: bytes = b"ticks", **fields: Any) -> Commit:
    record = frame(seq, epoch, payload)
    return Commit(seq=seq, digest=digest(record), record=record, **fields)


def on_every_store(test: Callable[[Case], Awaitable[None]]) -> Callable[..., None]:
    @pytest.mark.parametrize("kind", ["memory", "redis"])
    def run(kind: str, redis_url: str) -> None:
        async def scenario() -> None:
            store: Store = MemoryStore() if kind == "memory" else RedisStore.from_url(redis_url)
            try:
                await test(Case(store))
            finally:
                await store.close()

        asyncio.run(scenario())

    functools.update_wrapper(run, test, assigned=("__name__", "__doc__", "__module__"))
    del run.__wrapped__  # type: ignore[attr-defined] # pytest would read its parameters
    return run


# --- creation, and runs that aren't there ---------------------------------------------------------------


@on_every_store
async def test_init_creates_once_and_leaves_what_is_there(case: Case) -> None:
    assert await case.run.load() is None
    await case.held()
    await case.commit(1)
    await case.run.advance(4, "Disrupted")
    answer = await case.run.init(input_record({"n": 2}))
    assert answer.ok and answer.number == 4
    loaded = await case.run.load()
    assert loaded is not None and loaded.records[0] == input_record({"n": 1}) and loaded.seq == 1


@on_every_store
async def test_nothing_can_be_done_to_an_unknown_run(case: Case) -> None:
    run = case.run
    answers = [
        await run.acquire(1, "a", TTL),
        await run.renew(1, "a", TTL),
        await case.commit(1),
        await run.cut(1, "a", 0, frame_snapshot(0, 1, b"s")),
        await run.release(1, "a", "yield"),
        await run.advance(2, "Crashed"),
        await run.finish(2, b"{}"),
        await run.set_desired("Cancelled"),
        await run.send(Message("1", "Answer", b"{}")),
        await run.reopen(2, 1),
    ]
    assert [a.tag for a in answers if isinstance(a, Reply)] == [Tag.NOMETA] * len(answers)
    assert (await run.facts()).meta is None
    await run.clean()


@on_every_store
async def test_clean_removes_all_and_a_late_runner_brings_nothing_back(case: Case) -> None:
    await case.held()
    await case.commit(1, events=[b"e"])
    await case.arrive("5-0")
    await case.run.clean()
    assert (await case.run.renew(1, "a", TTL)).tag is Tag.NOMETA  # type: ignore[union-attr]
    assert (await case.commit(2)).tag is Tag.NOMETA
    facts = await case.run.facts()
    assert (facts.meta, facts.lease, facts.inbox_pending) == (None, None, 0)


@on_every_store
async def test_identity_is_made_once_when_asked_for(case: Case) -> None:
    namespace = f"{NAMESPACE}:{uuid.uuid4().hex}"
    assert await case.store.identity(namespace) is None
    made = await case.store.identity(namespace, create=True)
    assert made and await case.store.identity(namespace, create=True) == made
    assert await case.store.identity(namespace) == made


# --- an epoch is used once ------------------------------------------------------------------------------


@on_every_store
async def test_an_epoch_has_one_holder(case: Case) -> None:
    first = await case.held("a")
    assert (first.seq, first.desired, first.restarted) == (0, "Running", False)
    assert await case.run.acquire(1, "b", TTL) == Reply(Tag.FENCED, 1)
    again = await case.run.acquire(1, "a", TTL)
    assert isinstance(again, Acquired), "the holder itself is let in again, after a lost reply"


@on_every_store
async def test_acquire_raises_the_epoch_and_never_lowers_it(case: Case) -> None:
    await case.held("a")
    assert isinstance(await case.run.acquire(3, "c", TTL), Acquired)
    assert (await case.meta()).epoch == 3
    assert await case.run.acquire(2, "b", TTL) == Reply(Tag.FENCED, 3)
    assert await case.run.acquire(3, "b", TTL) == Reply(Tag.FENCED, 3)
    assert (await case.commit(1)).tag is Tag.FENCED


@on_every_store
async def test_after_a_takeover_the_old_holder_can_do_nothing(case: Case) -> None:
    await case.held("a")
    await case.commit(1)
    assert await case.run.advance(2, "LeaseExpired") == Reply(Tag.OK, 2)
    run = case.run
    assert await run.renew(1, "a", TTL) == Reply(Tag.FENCED, 2)
    assert await case.commit(2) == Reply(Tag.FENCED, 2)
    assert await run.cut(1, "a", 1, frame_snapshot(1, 1, b"s")) == Reply(Tag.FENCED, 2)
    assert await run.release(1, "a", "yield") == Reply(Tag.FENCED, 2)
    meta = await case.meta()
    assert (meta.fenced, meta.seq, meta.base, meta.released) == (1, 1, -1, "")
    # The same epoch under another holder is no better a token.
    assert isinstance(await run.acquire(2, "b", TTL), Acquired)
    assert await case.commit(2, epoch=2, holder="a") == Reply(Tag.FENCED, 2)
    assert await case.commit(2, epoch=2, holder="b") == Reply(Tag.OK, 2)


@on_every_store
async def test_advance_goes_upwards_only(case: Case) -> None:
    await case.held("a")
    assert await case.run.advance(5, "Crashed") == Reply(Tag.OK, 5)
    assert isinstance(await case.run.acquire(5, "b", TTL), Acquired)
    for epoch in (4, 5):
        assert await case.run.advance(epoch, "Late") == Reply(Tag.OK, 5)
    facts = await case.run.facts()
    assert facts.meta is not None and facts.meta.holder == "b" and facts.meta.cause == "Crashed"
    assert facts.lease is not None and facts.lease.holder == "b"


@on_every_store
async def test_a_run_being_deleted_is_nobodys(case: Case) -> None:
    await case.held("a")
    # Decided on an old observation: the epoch is as low as the holder's.
    assert await case.run.advance(1, "Deleted", deleted=True) == Reply(Tag.OK, 2)
    assert await case.run.advance(1, "Deleted", deleted=True) == Reply(Tag.OK, 2)
    assert (await case.commit(1)).tag is Tag.FENCED
    assert await case.run.acquire(9, "b", TTL) == Reply(Tag.NOMETA)
    assert (await case.meta()).deleted


# --- the lease ------------------------------------------------------------------------------------------


@on_every_store
async def test_renewal_prolongs_the_lease_and_tells_what_is_wanted(case: Case) -> None:
    await case.held("a")
    await case.run.set_desired("Cancelled")
    await case.arrive("7-1")
    answer = await case.run.renew(1, "a", 60_000)
    assert isinstance(answer, Renewed)
    assert (answer.desired, answer.inbox_last_id) == ("Cancelled", "7-1")
    facts = await case.run.facts()
    assert facts.lease is not None and (facts.lease.epoch, facts.lease.holder) == (1, "a")
    assert 50 < facts.lease.expires_in <= 60
    assert facts.inbox_pending == 1


@on_every_store
async def test_a_lease_that_expired_is_there_again_after_renewal(case: Case) -> None:
    await case.init()
    await case.run.acquire(1, "a", 20)
    await asyncio.sleep(0.05)
    assert (await case.run.facts()).lease is None
    assert isinstance(await case.run.renew(1, "a", TTL), Renewed)
    assert (await case.run.facts()).lease is not None


@on_every_store
async def test_the_blocking_renewer_answers_as_the_other(case: Case) -> None:
    await case.held("a")
    renewer = case.run.renewer(1.0)
    try:
        assert isinstance(await asyncio.to_thread(renewer.renew, 1, "a", TTL), Renewed)
        assert await asyncio.to_thread(renewer.renew, 1, "b", TTL) == Reply(Tag.FENCED, 1)
    finally:
        await asyncio.to_thread(renewer.close)


# --- commits --------------------------------------------------------------------------------------------


@on_every_store
async def test_the_same_bytes_again_are_stored_once(case: Case) -> None:
    await case.held()
    for _ in range(3):
        assert await case.commit(1) == Reply(Tag.OK, 1)
    await case.commit(2)
    assert await case.commit(1) == Reply(Tag.OK, 2)
    loaded = await case.run.load()
    assert loaded is not None and len(loaded.records) == 3


@on_every_store
async def test_a_commit_that_its_replicas_lack_is_stored_and_not_confirmed(case: Case) -> None:
    await case.held()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=" of "):
            await case.run.commit(1, "a", commit(1), replicas=9)
    loaded = await case.run.load()
    assert loaded is not None and len(loaded.records) == 2
    assert await case.commit(1) == Reply(Tag.OK, 1)


@on_every_store
async def test_a_batch_that_was_merged_after_sending_is_a_conflict(case: Case) -> None:
    await case.held()
    await case.commit(1, payload=b"a b")
    assert await case.commit(1, payload=b"a b c") == Reply(Tag.CONFLICT, 1)


@on_every_store
async def test_a_commit_past_the_next_seq_is_a_gap(case: Case) -> None:
    await case.held()
    await case.commit(1)
    expected = Reply(Tag.GAP, 1, commit(1).digest.encode())
    assert await case.commit(3) == expected
    assert await case.commit(2, previous="0" * 32) == expected, "it follows another record than the store's"
    assert await case.commit(2, previous=commit(1).digest) == Reply(Tag.OK, 2)


@on_every_store
async def test_a_commit_tells_what_goes_with_it(case: Case) -> None:
    await case.held()
    await case.arrive("1-0")
    await case.arrive("1-1")
    await case.arrive("2-0")
    await case.commit(1, progress=True, summary=b'{"n":1}', events=[b"one", b"two"], inbox_ack="1-1")
    await case.commit(2)
    facts = await case.run.facts()
    meta = facts.meta
    assert meta is not None
    assert (meta.seq, meta.step_seq, meta.summary, facts.inbox_pending) == (2, 1, b"{}", 1)
    assert meta.commit_time == pytest.approx(facts.store_time, abs=5)
    assert meta.log_bytes == sum(map(len, (await case.run.load()).records))  # type: ignore[union-attr]


@on_every_store
async def test_nothing_is_written_after_release(case: Case) -> None:
    await case.held()
    assert (await case.run.release(1, "a", "yield")).ok
    assert (await case.run.release(1, "a", "yield")).ok, "its reply may have been lost"
    assert await case.commit(1) == Reply(Tag.FENCED, 1)
    # A renewal that was under way must not bring the lease back.
    assert await case.run.renew(1, "a", TTL) == Reply(Tag.FENCED, 1)
    assert await case.run.acquire(1, "a", TTL) == Reply(Tag.FENCED, 1)
    facts = await case.run.facts()
    assert facts.lease is None and facts.meta is not None and facts.meta.released == "yield"


@on_every_store
async def test_an_idle_run_is_not_given_back_over_an_unseen_event(case: Case) -> None:
    await case.held()
    await case.arrive("3-0")
    assert await case.run.release(1, "a", "idle", wake_at=99.5) == Reply(Tag.INBOX)
    assert (await case.run.facts()).lease is not None
    assert (await case.run.release(1, "a", "idle", wake_at=99.5, inbox_seen="3-0")).ok
    assert (await case.meta()).wake_at == 99.5


@on_every_store
async def test_a_drained_run_is_given_back_whatever_came_in(case: Case) -> None:
    await case.held()
    await case.arrive("3-0")
    assert (await case.run.release(1, "a", "yield")).ok


# --- events from outside --------------------------------------------------------------------------------


def message(event_id: str, data: bytes = b"{}") -> Message:
    return Message(event_id, "Answer", data)


@on_every_store
async def test_an_event_is_taken_once_per_id_and_read_in_order(case: Case) -> None:
    await case.init()
    assert await case.run.send(message("one", b'{"n":1}')) == Reply(Tag.OK, 1)
    assert await case.run.send(message("two")) == Reply(Tag.OK, 2)
    assert await case.run.send(message("one", b'{"n":2}')) == Reply(Tag.OK, 0)
    found = await case.run.inbox("", 10)
    assert [sent for _, sent in found] == [message("one", b'{"n":1}'), message("two")]
    assert await case.run.inbox(found[0][0], 10) == found[1:]
    assert await case.run.inbox("", 1) == found[:1]
    assert (await case.run.facts()).inbox_pending == 2


@on_every_store
async def test_an_acknowledged_event_is_gone_and_its_id_still_known(case: Case) -> None:
    await case.held()
    await case.run.send(message("one"))
    await case.run.send(message("two"))
    (first, _), second = await case.run.inbox("", 10)
    assert (await case.commit(1, inbox_ack=first)).ok
    assert await case.run.inbox("", 10) == [second]
    assert await case.run.send(message("one")) == Reply(Tag.OK, 0)
    renewed = await case.run.renew(1, "a", TTL)
    assert isinstance(renewed, Renewed) and renewed.inbox_last_id == second[0]


@on_every_store
async def test_an_event_comes_behind_what_was_seen_though_the_store_went_back_and_its_clock_too(
    case: Case,
) -> None:
    await case.held()
    seen = "99999999999999-5"
    await case.arrive(seen)
    assert (await case.commit(1, inbox_ack=seen)).ok
    if isinstance(case.store, RedisStore):  # the holder writes its commit again, nobody the stream
        async with case.store.link() as link:
            await link.call("DEL", RunKeys.of(NAMESPACE, case.uid).inbox)
    assert (await case.run.send(message("one"))).ok
    assert (await case.run.send(message("two"))).ok
    assert [sent.id for _, sent in await case.run.inbox(seen, 10)] == ["one", "two"]


@on_every_store
async def test_an_event_for_a_run_that_ended_is_refused_unless_it_came_in_before(case: Case) -> None:
    await case.held()
    await case.run.send(message("before"))
    await case.commit(1, outcome=b'{"r":1}')
    assert await case.run.send(message("before")) == Reply(Tag.OK, 0)
    assert await case.run.send(message("after")) == Reply(Tag.OUTCOME, 0, b'{"r":1}')
    assert (await case.run.facts()).inbox_pending == 1


@on_every_store
async def test_a_run_being_deleted_takes_no_event(case: Case) -> None:
    await case.init()
    await case.run.advance(2, "Deleted", deleted=True)
    assert await case.run.send(message("one")) == Reply(Tag.NOMETA)


@on_every_store
async def test_an_inbox_is_bounded_in_bytes_and_takes_more_when_some_were_acknowledged(case: Case) -> None:
    await case.held()
    half = b"x" * (INBOX_BYTES // 2)
    for number in range(2):
        assert (await case.run.send(message(f"half-{number}", half))).ok
    assert await case.run.send(message("more", b"x")) == Reply(Tag.FULL, 2)
    assert (await case.run.facts()).inbox_pending == 2
    (first, _), _ = await case.run.inbox("", 10)
    assert (await case.commit(1, inbox_ack=first)).ok
    assert await case.run.send(message("more", half)) == Reply(Tag.OK, 2)
    assert await case.run.send(message("most", b"x")) == Reply(Tag.FULL, 2)


@on_every_store
async def test_an_inbox_is_bounded_in_entries(case: Case) -> None:
    await case.held()
    for start in range(0, INBOX_ENTRIES, 100):
        await asyncio.gather(*(case.run.send(message(str(start + n))) for n in range(100)))
    assert await case.run.send(message("more")) == Reply(Tag.FULL, INBOX_ENTRIES)
    last = (await case.run.inbox("", INBOX_ENTRIES))[-1][0]
    assert (await case.commit(1, inbox_ack=last)).ok
    assert await case.run.send(message("more")) == Reply(Tag.OK, 1)
    assert await case.run.send(message("9999")) == Reply(Tag.OK, 0), "remembered, though it was taken out"
    assert await case.run.send(message("0")) == Reply(Tag.OK, 2), (
        "the first one's id made room for the last one's"
    )


@on_every_store
async def test_clean_removes_inbox_and_remembered_ids(case: Case) -> None:
    await case.init()
    await case.run.send(message("one"))
    await case.run.clean()
    await case.init()
    assert await case.run.send(message("one")) == Reply(Tag.OK, 1)


# --- a failed run taken up again ------------------------------------------------------------------------


@on_every_store
async def test_reopening_takes_the_outcome_off_once_and_fences(case: Case) -> None:
    await case.held()
    await case.run.set_desired("DeadlineExceeded")
    await case.commit(1, outcome=b'{"reason":"StepFailed"}')
    assert await case.run.reopen(1, 1) == Reply(Tag.FENCED, 1), "decided on an old observation"
    assert await case.run.reopen(2, 1) == Reply(Tag.OK, 2)
    meta = await case.meta()
    assert (meta.outcome, meta.epoch, meta.holder, meta.cause, meta.desired, meta.reopened) == (
        None, 2, "", "Reopened", "Running", 1,
    )  # fmt: skip
    assert await case.commit(2) == Reply(Tag.FENCED, 2), "who committed the outcome may not go on"
    assert isinstance(await case.run.acquire(2, "b", TTL), Acquired)
    assert await case.run.reopen(3, 1) == Reply(Tag.OK, 2), "its reply was lost: it is done already"
    assert (await case.commit(2, epoch=2, holder="b", outcome=b"again")).ok
    assert await case.run.reopen(3, 1) == Reply(Tag.OK, 2)
    assert (await case.meta()).outcome == b"again", "the first reopening doesn't undo the second end"
    assert await case.run.reopen(3, 2) == Reply(Tag.OK, 3)


@on_every_store
async def test_reopening_forgets_how_often_invocations_were_cut_off(case: Case) -> None:
    await case.held()
    await case.commit(1, flight=[("+", "7", "poison")])
    await case.run.advance(2, "Crashed")
    await case.run.acquire(2, "b", TTL)
    assert (await case.meta()).in_flight[0].cuts == 1
    await case.run.finish(3, b'{"reason":"NoProgress"}')
    await case.run.reopen(4, 1)
    assert isinstance(await case.run.acquire(4, "c", TTL), Acquired)
    assert [(f.step, f.cuts) for f in (await case.meta()).in_flight] == [("poison", 0)]


@on_every_store
async def test_a_run_being_deleted_is_not_reopened(case: Case) -> None:
    await case.init()
    await case.run.advance(2, "Deleted", deleted=True)
    assert await case.run.reopen(3, 1) == Reply(Tag.NOMETA)


# --- the outcome is set once ----------------------------------------------------------------------------


@on_every_store
async def test_a_committed_outcome_stands_against_everything(case: Case) -> None:
    await case.held()
    assert (await case.commit(1, outcome=b'{"r":1}')).ok
    stands = Reply(Tag.OUTCOME, 0, b'{"r":1}')
    assert (await case.commit(1, outcome=b'{"r":1}')).ok, "its own resend, after a lost reply"
    assert await case.commit(2) == stands
    assert await case.run.finish(9, b'{"r":2}') == stands
    assert await case.run.advance(9, "Crashed") == stands
    assert await case.run.acquire(1, "a", TTL) == stands
    assert await case.run.renew(1, "a", TTL) == stands
    assert await case.run.release(1, "a", "yield") == stands
    facts = await case.run.facts()
    assert facts.lease is None and facts.meta is not None
    assert (facts.meta.epoch, facts.meta.outcome) == (1, b'{"r":1}')


@on_every_store
async def test_finish_fences_and_its_outcome_stands(case: Case) -> None:
    await case.held()
    await case.commit(1)
    assert await case.run.finish(1, b"late") == Reply(Tag.FENCED, 1), "decided on an old observation"
    stands = Reply(Tag.OUTCOME, 0, b"cancelled")
    assert await case.run.finish(2, b"cancelled") == stands
    assert await case.commit(2, outcome=b"result") == stands
    assert await case.commit(1) == stands
    assert await case.run.finish(3, b"deadline") == stands
    assert (await case.meta()).epoch == 2


# --- cuts -----------------------------------------------------------------------------------------------


@on_every_store
async def test_a_cut_keeps_what_was_committed_meanwhile(case: Case) -> None:
    await case.held()
    for seq in range(1, 6):
        await case.commit(seq)
    snapshot = frame_snapshot(3, 1, b"state at 3")
    assert await case.run.cut(1, "a", 3, snapshot) == Reply(Tag.OK, 3)
    assert await case.commit(6) == Reply(Tag.OK, 6)
    loaded = await case.run.load()
    assert loaded is not None
    payload, records = check(loaded)
    assert payload == b"state at 3" and [record.seq for record in records] == [4, 5, 6]
    meta = await case.meta()
    assert (meta.base, meta.snapshot_bytes) == (3, len(snapshot))
    assert meta.log_bytes == sum(map(len, loaded.records))


@on_every_store
async def test_an_older_cut_never_comes_back(case: Case) -> None:
    await case.held()
    for seq in range(1, 5):
        await case.commit(seq)
    assert (await case.run.cut(1, "a", 4, frame_snapshot(4, 1, b"new"))).ok
    assert await case.run.cut(1, "a", 2, frame_snapshot(2, 1, b"old")) == Reply(Tag.OK, 4)
    loaded = await case.run.load()
    assert loaded is not None and check(loaded) == (b"new", [])


@on_every_store
async def test_a_cut_past_the_log_is_refused(case: Case) -> None:
    await case.held()
    assert await case.run.cut(1, "a", 1, frame_snapshot(1, 1, b"s")) == Reply(Tag.GAP, 0)


@on_every_store
async def test_what_is_loaded_is_checked_against_the_last_seq(case: Case) -> None:
    await case.held()
    await case.commit(1)
    loaded = await case.run.load()
    assert loaded is not None
    loaded.records.pop()
    with pytest.raises(CheckpointCorruptError, match="ends at seq 0"):
        check(loaded)


# --- whom a crash cut off -------------------------------------------------------------------------------


@on_every_store
async def test_what_begins_and_ends_in_one_commit_is_not_in_flight_and_what_begins_again_is(
    case: Case,
) -> None:
    await case.held("a", 1)
    await case.commit(
        1, flight=[("+", "1", "a"), ("-", "1", ""), ("+", "2", "b"), ("-", "2", ""), ("+", "2", "b")]
    )
    assert [entry.invocation for entry in (await case.meta()).in_flight] == ["2"]


@on_every_store
async def test_a_fan_out_of_thousands_begins_and_ends_whole(case: Case) -> None:
    await case.held("a", 1)
    await case.commit(1, flight=[("+", str(number), "work") for number in range(5000)])
    assert len((await case.meta()).in_flight) == 5000
    await case.commit(2, flight=[("-", str(number), "") for number in range(5000)])
    assert (await case.meta()).in_flight == ()


@on_every_store
async def test_a_crash_counts_against_what_was_in_flight(case: Case) -> None:
    await case.held("a", 1)
    await case.commit(1, flight=[("+", "1", "find"), ("+", "2", "convert"), ("+", "3", "convert")])
    await case.commit(2, flight=[("-", "3", "")])

    async def cuts() -> dict[str, tuple[str, int]]:
        return {entry.invocation: (entry.step, entry.cuts) for entry in (await case.meta()).in_flight}

    assert await cuts() == {"1": ("find", 0), "2": ("convert", 0)}
    for epoch, cause in ((2, "Crashed"), (3, "Disrupted"), (4, "LeaseExpired")):
        await case.run.advance(epoch, cause)
        for _ in range(2):  # once per epoch, however often its holder asks
            assert isinstance(await case.run.acquire(epoch, f"h{epoch}", TTL), Acquired)
    assert await cuts() == {"1": ("find", 2), "2": ("convert", 2)}
    await case.commit(3, epoch=4, holder="h4", flight=[("=", "1", ""), ("+", "2", "convert")])
    assert await cuts() == {"1": ("find", 0), "2": ("convert", 2)}
    await case.commit(4, epoch=4, holder="h4", flight=[("-", "2", ""), ("+", "2", "other")])
    assert await cuts() == {"1": ("find", 0), "2": ("other", 0)}


@on_every_store
async def test_a_runner_that_goes_on_after_its_store_went_back_counts_nothing(case: Case) -> None:
    await case.held("a", 1)
    await case.commit(1, flight=[("+", "1", "find")])
    await case.run.advance(2, "Crashed")
    # Raised past the store's epoch: its own takeover is what the store has forgotten.
    assert isinstance(await case.run.acquire(3, "c", TTL), Acquired)
    assert [entry.cuts for entry in (await case.meta()).in_flight] == [0]


def test_a_restart_before_the_first_acquire_is_told() -> None:
    """The server may have lost that there was one, and what its holder committed."""

    async def told(store: Store, restart: Callable[[], None]) -> tuple[bool, bool]:
        case = Case(store)
        await case.init()
        restart()
        first = await case.run.acquire(1, "a", TTL)
        again = await case.run.acquire(1, "a", TTL)
        assert isinstance(first, Acquired)
        assert isinstance(again, Acquired)
        return first.restarted, again.restarted

    async def on_redis(server: RedisServer) -> tuple[bool, bool]:
        store = RedisStore.from_url(server.url)
        try:
            return await told(store, server.restart)
        finally:
            await store.close()

    memory = MemoryStore(durable="everysec")
    assert asyncio.run(told(memory, memory.restart)) == (True, False)
    with RedisServer() as server:
        assert asyncio.run(on_redis(server)) == (True, False)


def test_a_store_that_restarts_under_a_holder_is_told_before_the_holder_writes_to_it() -> None:
    """It may have less in it, of others too: a run's end that a successor committed, say."""

    async def told(store: Store, restart: Callable[[], None]) -> tuple[int, int]:
        case = Case(store)
        await case.init()
        session = RunSession(case.run, epoch=1, holder="a")
        await session.acquire(TTL)
        await session.load()
        await session.commit(Batch(payload=b"one"))
        before = (await case.meta()).restarts
        restart()
        await session.commit(Batch(payload=b"two"))
        return before, (await case.meta()).restarts

    async def on_redis(server: RedisServer) -> tuple[int, int]:
        store = RedisStore.from_url(server.url)
        try:
            return await told(store, server.restart)
        finally:
            await store.close()

    with RedisServer() as server:
        assert asyncio.run(on_redis(server)) == (0, 1)
