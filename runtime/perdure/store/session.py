"""A run that is held: commits in order, once each, through lost replies and a store that goes away."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from perdure.engine.journal import Batch
from perdure.errors import (
    CheckpointTooLargeError,
    CommitConflictError,
    LeaseLostError,
    RunEndedError,
    StateLostError,
    StoreAccessError,
    StoreUnavailableError,
)
from perdure.store.base import Acquired, Commit, Message, Reply, RunStore, Tag
from perdure.store.held import Held
from perdure.store.records import HEADER_BYTES, Record, check, digest, frame, frame_snapshot
from perdure.store.sealing import PLAIN, Seal

T = TypeVar("T")
log = logging.getLogger("perdure.store")

SNAPSHOT_FLOOR = 64 * 1024  # bytes of log below which no snapshot is made
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between tries at a store that is away
RELEASE_PATIENCE = 5.0


class RunSession:
    """One holder's hold on a run, by (epoch, holder). The engine's Journal.

    max_bytes: of a record and of a snapshot, before they are compressed. replicas: how many of them must
    have a commit before it counts. seal: what is done to records and snapshots, and which can be read.
    on_waiting: told the error when the store goes away, and None when it is back.
    """

    def __init__(
        self,
        run: RunStore,
        *,
        epoch: int,
        holder: str,
        max_bytes: int = 64 * 1024 * 1024,
        replicas: int = 0,
        seal: Seal = PLAIN,
        on_waiting: Callable[[StoreUnavailableError | None], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = epoch
        self.holder = holder
        self.seq = 0
        self._run = run
        self._max_bytes = max_bytes
        self._commit = partial(run.commit, replicas=replicas) if replicas else run.commit
        self._seal = seal
        self._on_waiting = on_waiting
        self._sleep = sleep
        self._clock = clock
        self._ttl_ms = 10_000
        self._held = Held(clock, max_bytes)
        self._turn = asyncio.Lock()
        self._sent: tuple[Commit, bytes | None] | None = None  # and not answered yet; its snapshot
        self._over: Exception | None = None  # why nothing more can be written
        self._unsure = False  # whether the store is still the one that was acquired
        self._went_back = False  # the store did, so other records than ours may be in it
        self._cutting: asyncio.Task[None] | None = None
        self._log_bytes = 0
        self._snapshot_bytes = 0

    async def acquire(self, ttl_ms: int) -> Acquired:
        """Take the run. Raises LeaseLostError, RunEndedError, StateLostError, StoreUnavailableError, ….

        After a lost reply it may be called again: the same holder is let in.
        """
        self._ttl_ms = ttl_ms
        answer = await self._run.acquire(self.epoch, self.holder, ttl_ms)
        if isinstance(answer, Reply):
            raise self._refusal(answer)
        self.seq = answer.seq
        self._held.begin(answer.seq, answer.digest)
        return answer

    async def reacquire(self) -> None:
        """The store went back to before this epoch: tell it again, without waiting for a commit's turn."""
        self._went_back = True
        answer = await self._insist(lambda: self._run.acquire(self.epoch, self.holder, self._ttl_ms))
        if isinstance(answer, Reply):
            raise self._refusal(answer)

    async def load(self) -> tuple[bytes | None, list[Record]]:
        """The snapshot's payload, or None, and the records after it.

        Raises CheckpointCorruptError, IncompatibleError, StateLostError, StoreUnavailableError.
        """
        try:
            loaded = await self._run.load()
        except StoreUnavailableError:
            self._unsure = True
            raise
        if loaded is None:
            raise StateLostError("the store doesn't know the run any more")
        snapshot, records = check(loaded, self._seal)
        last = loaded.base + len(records)
        if last != self.seq:
            raise StateLostError(
                f"the store had seq {self.seq} when this run was acquired and has {last} now: it went back, or"
                " someone writes past the fence"
            )
        self._snapshot_bytes = len(loaded.snapshot or b"")
        self._log_bytes = sum(len(record) for record in loaded.records)
        return snapshot, records

    async def inbox(self, after: str, count: int) -> list[tuple[str, Message]]:
        """Events from outside behind the inbox id `after`. Raises StoreUnavailableError, ….

        What was taken is acknowledged by the batch that has it (`Batch.inbox_ack`).
        """
        return await self._run.inbox(after, count)

    @property
    def max_bytes(self) -> int:
        """Of a record, and of a snapshot."""
        return self._max_bytes

    @property
    def wants_snapshot(self) -> bool:
        return self._cutting is None and self._log_bytes > max(SNAPSHOT_FLOOR, 2 * self._snapshot_bytes)

    async def commit(self, batch: Batch) -> None:
        """As the engine's Journal has it. Raises also RunEndedError, StateLostError, CommitConflictError."""
        async with self._turn:
            if self._sent is not None or self._over is not None:
                await self._finish()
            self._sent = self._frozen(batch), batch.snapshot
            await self._finish()

    async def _finish(self) -> None:
        """Have what was sent answered. A caller's cancellation leaves it to whoever writes next."""
        if self._over is not None:
            raise self._over
        if self._sent is None:
            return
        commit, snapshot = self._sent
        try:
            await self._send(commit)
        except Exception as error:
            self._over = error
            raise
        self._sent = None
        self.seq = commit.seq
        self._held.add(commit)
        self._log_bytes += len(commit.record)
        if commit.outcome is not None:
            if self._cutting is not None:
                self._cutting.cancel()  # nobody resumes what has ended
        elif snapshot is not None and self._cutting is None:
            # Beside the commits to come: a large upload must not hold them up, and the log is whole
            # without it.
            self._cutting = asyncio.create_task(self._cut(commit.seq, snapshot, self._log_bytes))

    async def release(
        self,
        kind: str,
        *,
        wake_at: float | None = None,
        inbox_seen: str = "",
        patience: float = RELEASE_PATIENCE,
    ) -> bool:
        """Give the run back; False when an event came in that was not seen, and the run is still held.

        Tries for `patience` seconds. Raises LeaseLostError, RunEndedError, StoreUnavailableError.
        """
        async with self._turn:
            if self._sent is not None:
                await self._finish()
            await self.settle()
            answer = await self._insist(
                lambda: self._run.release(
                    self.epoch, self.holder, kind, wake_at=wake_at, inbox_seen=inbox_seen
                ),
                patience,
            )
            if answer.tag is Tag.INBOX:
                return False
            if not answer.ok:
                raise self._refusal(answer)
            self._over = LeaseLostError(f"epoch {self.epoch} of this holder is over: the run was given back")
            return True

    async def settle(self) -> None:
        """End the upload of a snapshot, if there is one under way. The log is whole without it."""
        if self._cutting is not None:
            self._cutting.cancel()
            await asyncio.wait([self._cutting])

    # --- commits --------------------------------------------------------------------------------------

    def _frozen(self, batch: Batch) -> Commit:
        """The batch as it will be sent, however often: later ticks go to the next seq."""
        seq = self.seq + 1
        self._check_size("record", len(batch.payload) + HEADER_BYTES)
        record = frame(seq, self.epoch, batch.payload, self._seal)
        if batch.outcome is not None:
            # Whoever looks after the run reads it at every look.
            self._check_size("outcome", len(batch.outcome))
        if batch.snapshot is not None:
            self._check_size("snapshot", len(batch.snapshot) + HEADER_BYTES)
        return Commit(
            seq=seq,
            digest=digest(record),
            record=record,
            progress=batch.progress,
            flight=tuple(batch.flight),
            summary=batch.summary,
            outcome=batch.outcome,
            events=tuple(batch.published),
            inbox_ack=batch.inbox_ack,
            previous=self._held.digest(self.seq) or "",
        )

    def _check_size(self, what: str, size: int) -> None:
        if size > self._max_bytes:
            raise CheckpointTooLargeError(
                f"a {what} of {size} bytes is over checkpoint.maxBytes ({self._max_bytes}): raise that, or keep"
                " large values elsewhere and their names in the state"
            )

    async def _send(self, commit: Commit) -> None:
        """Until the store has it."""
        while True:
            answer = await self._insist(partial(self._write, commit))
            if answer.tag is Tag.OK:
                if answer.number != commit.seq:
                    raise self._forked(answer.number)
                return
            if answer.tag is Tag.FENCED and answer.number <= self.epoch:
                # The store went back to before this epoch was told or taken: it is still ours to take,
                # unless its answer is that another has it.
                await self.reacquire()
            elif answer.tag is Tag.GAP:
                await self._rewrite(answer.number, answer.data.decode(), commit)
            elif answer.tag is Tag.CONFLICT and self._went_back:
                raise self._forked(answer.number)
            elif answer.tag is Tag.CONFLICT:
                raise CommitConflictError(
                    f"the store holds another record {commit.seq} of this same holder: please report this"
                )
            else:
                raise self._refusal(answer)

    async def _write(self, commit: Commit) -> Reply:
        """One try. After one that had no answer the run is acquired again before anything is written.

        The store may be another process by then, with less in it: who acquires is counted as told of
        that. Whatever refuses it there refuses the commit as well, and says so more exactly.
        """
        try:
            if self._unsure:
                again = await self._run.acquire(self.epoch, self.holder, self._ttl_ms)
                if isinstance(again, Acquired) and not self._is_own(again, commit):
                    self._went_back = True
                self._unsure = False
            return await self._commit(self.epoch, self.holder, commit)
        except (StoreUnavailableError, StoreAccessError):
            self._unsure = True
            raise

    def _is_own(self, found: Acquired, sent: Commit) -> bool:
        """Whether the store's last record is one that this holder knows."""
        last = (found.seq, found.digest)
        return last == (sent.seq, sent.digest) or found.digest == self._held.digest(found.seq)

    async def _rewrite(self, last: int, found: str, wanted: Commit) -> None:
        """The store lost records that it had acknowledged: send again what is still held."""
        if last >= wanted.seq:
            raise self._forked(last)
        missing = self._held.after(last)
        if missing is None:
            raise StateLostError(
                f"the store went back to seq {last} of this run, which was at {self.seq}, and what it lost is not"
                " held here any more: set Redis to `appendfsync always` where this must not happen"
            )
        if self._held.digest(last) != found:
            raise self._forked(last)
        log.warning("the store went back to seq %d; sending %d records again", last, len(missing))
        for commit in missing:
            answer = await self._insist(partial(self._write, commit))
            if not answer.ok:
                return  # it went back once more, or is another's: the commit's own next answer says so

    def _forked(self, last: int) -> StateLostError:
        return StateLostError(
            f"the store lost records of this run, and another holder's stand in their place (seq {last}): it goes"
            " on from those"
        )

    async def _cut(self, seq: int, snapshot: bytes, log_bytes: int) -> None:
        try:
            if self._seal.plain:
                framed = frame_snapshot(seq, self.epoch, snapshot)
            else:
                # In a thread: of many MiB it takes longer than the steps should wait.
                framed = await asyncio.to_thread(frame_snapshot, seq, self.epoch, snapshot, self._seal)
            answer = await self._run.cut(self.epoch, self.holder, seq, framed)
            if answer.ok:
                self._snapshot_bytes = len(framed)
                self._log_bytes -= log_bytes
            # Any other answer is the next commit's to hear, too; the log is whole.
        except (StoreUnavailableError, StoreAccessError) as error:
            log.warning("the log could not be cut at seq %d; the next snapshot tries again: %s", seq, error)
        finally:
            self._cutting = None

    # --- the store's answers --------------------------------------------------------------------------

    async def _insist(self, call: Callable[[], Awaitable[T]], patience: float | None = None) -> T:
        """Call until the store answers. For what may be repeated only."""
        give_up = None if patience is None else self._clock() + patience
        pause, waiting = FIRST_PAUSE, False
        while True:
            try:
                answer = await call()
            except (StoreUnavailableError, StoreAccessError) as error:
                # Credentials that held once and don't now are someone's to mend, while the run waits.
                if give_up is not None and self._clock() >= give_up:
                    raise
                if not waiting and self._on_waiting is not None:
                    self._on_waiting(
                        error
                        if isinstance(error, StoreUnavailableError)
                        else StoreUnavailableError(str(error))
                    )
                waiting = True
            else:
                if waiting and self._on_waiting is not None:
                    self._on_waiting(None)
                return answer
            await self._sleep(pause * random.uniform(0.5, 1.0))
            pause = min(LONGEST_PAUSE, pause * 2)

    def _refusal(self, answer: Reply) -> Exception:
        if answer.tag is Tag.OUTCOME:
            return RunEndedError(answer.data)
        if answer.tag is Tag.NOMETA:
            return StateLostError("the store doesn't know the run any more")
        return LeaseLostError(
            f"epoch {self.epoch} of this holder is over: the store is at epoch {answer.number}, and another holder"
            " has the run or had it"
        )
