"""A run whose state is a store's: folds snapshot and log, goes on from there, commits what happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from perdure.engine.gate import Gate
from perdure.engine.model import Codec, State
from perdure.errors import CheckpointCorruptError
from perdure.fold import fold_records, live_store, read_snapshot, serializer_of
from perdure.inbox import Inbox
from perdure.run import Run, start_event
from perdure.store.base import Acquired, Renewed
from perdure.store.records import Record
from perdure.store.session import RunSession
from perdure.workflow import Workflow


class StoreClock:
    """The store's time, taken over at each renewal and monotonic between; never below what was logged.

    So that timers fire alike on hosts whose clocks differ.
    """

    def __init__(
        self, store_time: float, *, floor: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ):
        self._monotonic = monotonic
        self._floor = floor
        self.set(store_time)

    def set(self, store_time: float) -> None:
        self._offset = store_time - self._monotonic()

    def __call__(self) -> float:
        self._floor = max(self._floor, self._monotonic() + self._offset)
        return self._floor


class DurableRun:
    """One acquired run of a workflow, executing in this process on the running event loop."""

    def __init__(self, run: Run, clock: StoreClock, inbox: Inbox) -> None:
        self._run = run
        self._clock = clock
        self._inbox = inbox

    @classmethod
    def start(
        cls,
        workflow: Workflow[Any],
        session: RunSession,
        snapshot: bytes | None,
        records: Sequence[Record],
        *,
        acquired: Acquired,
        gate: Gate | None = None,
        durability: str = "Strict",
        serializer: str = "JSON",
        run_id: str = "",
    ) -> DurableRun:
        """Take the run up where its log ends.

        Raises CheckpointCorruptError, IncompatibleError (the code doesn't fit the log), and
        WorkflowRuntimeError when the StartEvent refuses the input.
        """
        codec_serializer = serializer_of(workflow, serializer)
        codec = workflow._codec(codec_serializer)
        state, fields = fold(workflow, codec, snapshot, records)
        clock = StoreClock(
            acquired.store_time, floor=state.last_time, monotonic=asyncio.get_running_loop().time
        )
        first = None if state.begun else start_event(workflow, fields)
        run = Run(
            workflow,
            run_id=run_id or session.holder,
            state=state,
            store=live_store(workflow, state, codec_serializer),
            serializer=codec_serializer,
            journal=session,
            gate=gate,
            now=clock,
            relaxed=durability == "Relaxed",
            timeout=workflow.durable_timeout,
        )
        if first is not None:
            run.begin(first)
        else:
            run.loop.take_over(session.epoch)
        inbox = Inbox(session, run)
        inbox.read()  # what came while nobody held the run
        return cls(run, clock, inbox)

    @property
    def run(self) -> Run:
        return self._run

    async def wait(self) -> bytes | None:
        """The outcome's JSON once it is committed; None when the run was drained and goes on elsewhere.

        Raises what keeps the run from going on here: LeaseLostError, StateLostError, RunEndedError, …
        """
        run = self._run
        await asyncio.wait([run.result])
        if run.ending is not None:
            return run.outcome(run.ending)
        if run.error is not None:
            raise run.error
        return None

    async def drain(self, seconds: float) -> None:
        """Start no step; give those in flight `seconds` to reach a commit of their own, then cancel them."""
        await self._run.loop.drain(seconds)

    def cancel(self, reason: str, message: str = "") -> None:
        """Commit `reason` as the outcome, unless there is one, and cancel the steps."""
        self._run.loop.halt(reason, message or f"the run was ended: {reason}")

    def abandon(self, error: BaseException) -> None:
        """The run can't go on here (its lease is lost): cancel the steps, write nothing more."""
        self._run.loop.stop(None, error)

    def renewed(self, renewed: Renewed) -> None:
        """What the store told with a renewal: its time, and whether an event came in."""
        self._clock.set(renewed.store_time)
        self._inbox.look(renewed.inbox_last_id)


def fold(
    workflow: Workflow[Any], codec: Codec, snapshot: bytes | None, records: Sequence[Record]
) -> tuple[State, dict[str, Any]]:
    """The state after `snapshot` and `records`, and the run's input (empty behind a snapshot)."""
    fields: dict[str, Any] = {}
    if snapshot is None:
        if not records:
            raise CheckpointCorruptError("the log has no record 0: the run's input is gone")
        state = State()
        fields = _input(records[0])
        records = records[1:]
    else:
        state = read_snapshot(workflow, codec, snapshot)
    fold_records(workflow, codec, state, ((record.seq, record.payload) for record in records))
    return state, fields


def _input(record: Record) -> dict[str, Any]:
    try:
        fields = json.loads(record.payload)["input"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorruptError(f"record 0 isn't a run's input: {error!r}") from error
    if not isinstance(fields, dict):
        raise CheckpointCorruptError(f"record 0 holds a {type(fields).__name__} where the input belongs")
    return fields
