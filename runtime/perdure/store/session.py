"""A run that is held: commits in order, once each, through lost replies and a store that goes away."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from perdure.engine.journal import Batch
from perdure.errors import (
    CheckpointTooLargeError,
    CommitConflictError,
    LeaseLostError,
    RunEndedError,
    StateLostError,
    StoreUnavailableError,
)
from perdure.store.base import Acquired, Commit, Reply, RunStore, Tag
from perdure.store.records import Record, check, digest, frame

T = TypeVar("T")

SNAPSHOT_FLOOR = 64 * 1024  # bytes of log below which no snapshot is made
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between tries at a store that is away
KEEP_SECONDS = 3.0  # how long a record is kept for a store that may lose its unsynced tail
KEEP_BYTES = 64 * 1024 * 1024


class _Sent(NamedTuple):
    at: float
    commit: Commit


class RunSession:
    """One holder's hold on a run, by (epoch, holder). The engine's Journal.

    on_waiting: told the error while the store is away, None when it is back.
    """

    def __init__(
        self,
        run: RunStore,
        *,
        epoch: int,
        holder: str,
        max_bytes: int = 64 * 1024 * 1024,
        on_waiting: Callable[[StoreUnavailableError | None], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = epoch
        self.holder = holder
        self.seq = 0
        self._run = run
        self._max_bytes = max_bytes
        self._on_waiting = on_waiting
        self._sleep = sleep
        self._clock = clock
        self._ttl_ms = 10_000
        self._sent: deque[_Sent] = deque()
        self._sent_bytes = 0
        self._log_bytes = 0
        self._snapshot_bytes = 0

    async def acquire(self, ttl_ms: int) -> Acquired:
        """Take the run. Raises LeaseLostError, RunEndedError, StateLostError, StoreUnavailableError."""
        self._ttl_ms = ttl_ms
        answer = await self._run.acquire(self.epoch, self.holder, ttl_ms)
        if isinstance(answer, Reply):
            raise self._refusal(answer)
        self.seq = answer.seq
        return answer

    async def load(self) -> tuple[bytes | None, list[Record]]:
        """The snapshot's payload, or None, and the records after it.

        Raises CheckpointCorruptError, IncompatibleError, StateLostError.
        """
        loaded = await self._run.load()
        if loaded is None:
            raise StateLostError("the store doesn't know the run any more")
        snapshot, records = check(loaded)
        self.seq = loaded.seq
        self._snapshot_bytes = len(loaded.snapshot or b"")
        self._log_bytes = sum(len(record) for record in loaded.records)
        return snapshot, records

    @property
    def wants_snapshot(self) -> bool:
        return self._log_bytes > max(SNAPSHOT_FLOOR, 2 * self._snapshot_bytes)

    async def commit(self, batch: Batch) -> None:
        """As the engine's Journal has it."""
        # Once it is on its way, nobody's cancellation may tear it: what was sent is sent to the end.
        await asyncio.shield(self._commit(batch))

    async def _commit(self, batch: Batch) -> None:
        record = frame(self.seq + 1, self.epoch, batch.payload)
        if len(record) > self._max_bytes:
            raise CheckpointTooLargeError(
                f"a record of {len(record)} bytes is over checkpoint.maxBytes ({self._max_bytes}): raise it, or "
                f"keep large values outside and their names in the state"
            )
        commit = Commit(
            seq=self.seq + 1,
            digest=digest(record),
            record=record,
            progress=batch.progress,
            flight=tuple(batch.flight),
            summary=batch.summary,
            outcome=batch.outcome,
            events=tuple(batch.published),
        )
        self._keep(commit)
        await self._send(commit)
        self.seq = commit.seq
        self._log_bytes += len(record)
        if batch.snapshot is not None and batch.outcome is None:
            await self._cut(batch.snapshot)

    async def release(self, kind: str, *, wake_at: float | None = None) -> bool:
        """Give the run back; False when an event came in that was not seen, and the run is still held."""
        answer = await self._insist(lambda: self._run.release(self.epoch, self.holder, kind, wake_at=wake_at))
        if answer.ok:
            return True
        if answer.tag is Tag.INBOX:
            return False
        raise self._refusal(answer)

    # --- sending ----------------------------------------------------------------------------------------

    async def _send(self, commit: Commit) -> None:
        """Until the store has it. The bytes are frozen: a lost reply is answered by sending the same."""
        while True:
            answer = await self._insist(lambda: self._run.commit(self.epoch, self.holder, commit))
            if answer.ok:
                return
            if answer.tag is Tag.FENCED and answer.number < self.epoch:
                # The store went back to before this epoch: it is still ours to raise.
                await self._reacquire()
            elif answer.tag is Tag.GAP:
                await self._rewrite(answer.number, commit.seq)
            elif answer.tag is Tag.CONFLICT:
                raise CommitConflictError(
                    f"the store holds another record {commit.seq} of this same holder: please report this"
                )
            else:
                raise self._refusal(answer)

    async def _rewrite(self, last: int, wanted: int) -> None:
        """The store lost records that it had acknowledged: send again what is still held."""
        held = {sent.commit.seq: sent.commit for sent in self._sent}
        missing = [seq for seq in range(last + 1, wanted) if seq not in held]
        if missing:
            raise StateLostError(
                f"the store went back to seq {last} of this run, and records {missing[0]} to {missing[-1]} are "
                f"not held here any more: set Redis to `appendfsync always` where this must not happen"
            )
        for seq in range(last + 1, wanted):
            answer = await self._insist(lambda seq=seq: self._run.commit(self.epoch, self.holder, held[seq]))
            if not answer.ok:
                raise self._refusal(answer)

    async def _reacquire(self) -> None:
        answer = await self._insist(lambda: self._run.acquire(self.epoch, self.holder, self._ttl_ms))
        if isinstance(answer, Reply):
            raise self._refusal(answer)

    async def _cut(self, snapshot: bytes) -> None:
        framed = frame(self.seq, self.epoch, snapshot, snapshot=True)
        if len(framed) > self._max_bytes:
            raise CheckpointTooLargeError(
                f"the snapshot of {len(framed)} bytes is over checkpoint.maxBytes ({self._max_bytes})"
            )
        try:
            answer = await self._run.cut(self.epoch, self.holder, self.seq, framed)
        except StoreUnavailableError:
            return  # the log is whole without it; the next batch brings another
        if not answer.ok and answer.tag is not Tag.GAP:
            raise self._refusal(answer)
        if answer.ok:
            self._snapshot_bytes, self._log_bytes = len(framed), 0

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the store answers. Safe for what may be repeated only."""
        pause = FIRST_PAUSE
        while True:
            try:
                answer = await call()
            except StoreUnavailableError as error:
                if self._on_waiting is not None:
                    self._on_waiting(error)
            else:
                if pause > FIRST_PAUSE and self._on_waiting is not None:
                    self._on_waiting(None)
                return answer
            await self._sleep(pause * random.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE, pause * 2)

    def _keep(self, commit: Commit) -> None:
        self._sent.append(_Sent(self._clock(), commit))
        self._sent_bytes += len(commit.record)
        horizon = self._clock() - KEEP_SECONDS
        while len(self._sent) > 1 and (self._sent[0].at < horizon or self._sent_bytes > KEEP_BYTES):
            self._sent_bytes -= len(self._sent.popleft().commit.record)

    def _refusal(self, answer: Reply) -> Exception:
        if answer.tag is Tag.OUTCOME:
            return RunEndedError(answer.data)
        if answer.tag is Tag.NOMETA:
            return StateLostError("the store doesn't know the run any more")
        return LeaseLostError(
            f"epoch {self.epoch} of this holder is over: the store is at epoch {answer.number}, another holder "
            f"has the run"
        )
