"""A session sends frozen bytes until they are answered, and stops when the run isn't its any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from perdure.engine.journal import Batch
from perdure.errors import (
    CheckpointTooLargeError,
    CommitConflictError,
    LeaseLostError,
    RunEndedError,
    StateLostError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from perdure.store.base import Commit, Reply
from perdure.store.held import KEEP_SECONDS, Held
from perdure.store.memory import MemoryRunStore, MemoryStore
from perdure.store.records import check, digest, frame, input_record
from perdure.store.session import FIRST_PAUSE, LONGEST_PAUSE, SNAPSHOT_FLOOR, RunSession


class Flaky(MemoryRunStore):
    """Fails as told: `faults` is taken from the front, one for each commit; "lost" applies it first.

    One that can be called is what happens to the store before the commit comes.
    """

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, "test", "run")
        self.faults: list[StoreError | str | Callable[[], None] | None] = []
        self.sent: list[Commit] = []
        self.before_cut: Callable[[], Awaitable[None]] | None = None

    async def commit(self, epoch: int, holder: str, commit: Commit) -> Reply:
        self.sent.append(commit)
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, StoreError):
            raise fault
        if callable(fault):
            fault()
        answer = await super().commit(epoch, holder, commit)
        if fault == "lost":
            raise StoreUnavailableError("connection reset")
        return answer

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> Reply:
        if self.before_cut is not None:
            await self.before_cut()
        return await super().cut(epoch, holder, seq, snapshot)


class Rig:
    def __init__(self, **options: Any) -> None:
        self.store = MemoryStore()
        self.run = Flaky(self.store)
        self.pauses: list[float] = []
        self.told: list[StoreUnavailableError | None] = []
        self.session = RunSession(
            self.run, epoch=1, holder="a", sleep=self.sleep, on_waiting=self.told.append, **options
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def start(self) -> RunSession:
        await self.run.init(input_record({}))
        await self.session.acquire(10_000)
        await self.session.load()
        return self.session

    async def payloads(self) -> list[bytes]:
        loaded = await self.run.load()
        assert loaded is not None
        return [record.payload for record in check(loaded)[1][1:]]


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_a_lost_reply_is_answered_with_the_same_bytes_before_anything_else() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        rig.run.faults = ["lost", StoreUnavailableError("away"), "lost"]
        first = asyncio.create_task(session.commit(Batch(b"1")))
        second = asyncio.create_task(session.commit(Batch(b"2")))
        await asyncio.gather(first, second)
        assert [commit.seq for commit in rig.run.sent] == [1, 1, 1, 1, 2]
        assert all(commit is rig.run.sent[0] for commit in rig.run.sent[:4])
        assert await rig.payloads() == [b"1", b"2"]
        assert [told is None for told in rig.told] == [False, True], "told once each way"

    play(scenario())


def test_it_waits_longer_and_longer_but_never_gives_up() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        rig.run.faults = [StoreUnavailableError("away")] * 100 + [StoreAccessError("WRONGPASS")] * 2
        await session.commit(Batch(b"1"))
        assert len(rig.pauses) == 102
        assert rig.pauses[0] <= FIRST_PAUSE and max(rig.pauses) <= LONGEST_PAUSE
        assert min(rig.pauses[10:]) >= LONGEST_PAUSE / 2

    play(scenario())


def test_a_cancelled_caller_does_not_tear_what_was_sent() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        rig.run.faults = [StoreUnavailableError("away")] * 5
        caller = asyncio.create_task(session.commit(Batch(b"1")))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await session.commit(Batch(b"2"))
        assert await rig.payloads() == [b"1", b"2"]

    play(scenario())


def test_what_a_cancelled_caller_sent_is_durable_before_the_run_is_given_back() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        rig.run.faults = [StoreUnavailableError("away")] * 5
        caller = asyncio.create_task(session.commit(Batch(b"1")))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await session.release("yield")
        assert await rig.payloads() == [b"1"]

    play(scenario())


def test_what_is_too_large_is_not_sent_and_a_smaller_one_may_follow() -> None:
    async def scenario() -> None:
        rig = Rig(max_bytes=1000)
        session = await rig.start()
        for batch in (Batch(b"x" * 1000), Batch(b"1", snapshot=b"x" * 1000)):
            with pytest.raises(CheckpointTooLargeError, match=r"over checkpoint.maxBytes \(1000\)"):
                await session.commit(batch)
        assert rig.run.sent == []
        await session.commit(Batch(b"end", outcome=b"{}"))
        assert await rig.payloads() == [b"end"]

    play(scenario())


def test_a_fenced_session_stays_so() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        await rig.run.advance(2, "LeaseExpired")
        for _ in range(2):
            with pytest.raises(LeaseLostError, match="the store is at epoch 2"):
                await session.commit(Batch(b"1"))
        assert len(rig.run.sent) == 1
        with pytest.raises(LeaseLostError):
            await session.release("yield")
        with pytest.raises(LeaseLostError):
            await session.acquire(10_000)

    play(scenario())


def test_an_ended_run_tells_its_outcome() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        await rig.run.finish(2, b'{"reason":"Cancelled"}')
        for call in (session.commit(Batch(b"1")), session.acquire(10_000)):
            with pytest.raises(RunEndedError) as caught:
                await call
            assert caught.value.outcome == b'{"reason":"Cancelled"}'

    play(scenario())


def test_other_bytes_at_a_seq_are_a_bug_and_said_to_be() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        await session.commit(Batch(b"1"))
        session.seq = 0
        with pytest.raises(CommitConflictError):
            await session.commit(Batch(b"other"))

    play(scenario())


def test_a_cut_lets_later_commits_by_and_shrinks_the_log() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        assert not session.wants_snapshot
        await session.commit(Batch(b"x" * SNAPSHOT_FLOOR))
        assert session.wants_snapshot
        uploaded = asyncio.Event()
        rig.run.before_cut = uploaded.wait  # type: ignore[assignment]
        await session.commit(Batch(b"2", snapshot=b"state at 2"))
        await session.commit(Batch(b"3"))
        assert not session.wants_snapshot, "one at a time"
        uploaded.set()
        while session._cutting is not None:
            await asyncio.sleep(0)
        loaded = await rig.run.load()
        assert loaded is not None
        payload, records = check(loaded)
        assert payload == b"state at 2" and [record.payload for record in records] == [b"3"]
        assert session._log_bytes == len(loaded.records[0])

    play(scenario())


def test_a_cut_that_fails_costs_nothing_and_is_asked_for_again() -> None:
    async def away() -> None:
        raise StoreUnavailableError("away")

    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        await session.commit(Batch(b"x" * SNAPSHOT_FLOOR))
        rig.run.before_cut = away
        await session.commit(Batch(b"2", snapshot=b"state at 2"))
        while session._cutting is not None:
            await asyncio.sleep(0)
        assert session.wants_snapshot
        assert len(await rig.payloads()) == 2

    play(scenario())


def test_release_is_refused_over_an_unseen_event_and_given_up_in_time() -> None:
    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        rig.store.runs["test", "run"].inbox.append(("4-0", b"e"))
        assert await session.release("idle") is False
        await session.commit(Batch(b"1"))
        assert await session.release("idle", inbox_seen="4-0") is True
        with pytest.raises(LeaseLostError, match="given back"):
            await session.commit(Batch(b"2"))

    play(scenario())


def test_commits_are_held_for_a_while_within_bounds() -> None:
    now = 0.0
    held = Held(lambda: now, max_bytes=100)
    held.begin(5, "five")

    def add(seq: int, size: int) -> None:
        held.add(Commit(seq=seq, digest=f"d{seq}", record=b"x" * size))

    def seqs(after: int) -> list[int] | None:
        commits = held.after(after)
        return None if commits is None else [commit.seq for commit in commits]

    add(6, 10)
    add(7, 10)
    assert (seqs(5), seqs(6), seqs(7), seqs(4)) == ([6, 7], [7], [], None)
    assert (held.digest(5), held.digest(6), held.digest(4), held.digest(8)) == ("five", "d6", None, None)
    now = KEEP_SECONDS + 0.1
    add(8, 10)
    assert (seqs(7), seqs(6), held.digest(7)) == ([8], None, "d7")
    add(9, 95)
    assert (seqs(8), seqs(7), held.digest(8)) == ([9], None, "d8")
    add(10, 200)
    assert (seqs(10), seqs(9), held.digest(10)) == ([], None, "d10")


def test_a_store_that_goes_back_again_while_its_records_are_sent_again_is_told_as_what_it_is() -> None:
    """The second time with another holder's record in it: state is lost, and the lease isn't."""

    async def scenario() -> None:
        rig = Rig()
        session = await rig.start()
        await session.commit(Batch(b"1"))
        await session.commit(Batch(b"2"))
        run = rig.store.runs["test", "run"]

        def go_back() -> None:
            del run.log[1:]
            run.seq, run.digest = 0, digest(run.log[0])

        def go_back_to_another() -> None:
            go_back()
            other = frame(1, 1, b"another's")
            run.log.append(other)
            run.seq, run.digest = 1, digest(other)

        rig.run.faults = [go_back, go_back_to_another]
        with pytest.raises(StateLostError, match="another holder's"):
            await session.commit(Batch(b"3"))
        assert await rig.payloads() == [b"another's"]

    play(scenario())
