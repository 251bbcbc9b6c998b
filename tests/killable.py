"""A durable run whose process dies at chosen commits: the engine over a log in memory."""

import asyncio
import json
from collections import deque

import msgspec

from perdure import Workflow
from perdure.durable import fold
from perdure.engine.journal import Batch
from perdure.engine.model import State
from perdure.fold import live_store
from perdure.run import Run
from perdure.store.records import Record


class Killed(Exception):
    """The process is gone."""


class Log:
    """A journal in memory that dies at its `kill_at`-th commit, before or after it is there."""

    def __init__(
        self, kill_at: int = 10**9, *, stored: bool = True, snapshots: bool = False, cuts: bool = True
    ):
        self.records: list[Record] = [Record(0, 1, json.dumps({"input": {"count": 6}}).encode())]
        self.snapshot: bytes | None = None
        self.kill_at = kill_at
        self.stored = stored
        self.outcome: bytes | None = None
        self.commits = 0
        self.published: list[bytes] = []
        self.flight: list = []
        self.summary = b"{}"
        self.wants_snapshot = snapshots
        self.cuts = cuts
        self.taken: list[tuple[int, bytes]] = []
        self.hold_after = -1
        self.release = asyncio.Event()

    async def commit(self, batch: Batch) -> None:
        if self.commits == self.hold_after:
            await self.release.wait()
        await asyncio.sleep(0)
        self.commits += 1
        dies = self.commits == self.kill_at
        if not dies or self.stored:
            self.records.append(Record(len(self.records), 1, batch.payload))
            self.outcome = batch.outcome or self.outcome
            self.published += batch.published
            self.flight += batch.flight
            self.summary = batch.summary
            if batch.snapshot is not None:
                self.taken.append((len(self.records), batch.snapshot))
                if self.cuts:
                    self.snapshot, self.records = batch.snapshot, []
        if dies:
            raise Killed


def open_run(workflow: Workflow, log: Log, **options) -> Run:
    codec = workflow._codec(workflow.serializer)
    state, fields = fold(workflow, codec, log.snapshot, log.records)
    run = Run(
        workflow,
        run_id="r",
        state=state,
        store=live_store(workflow, state, workflow.serializer),
        serializer=workflow.serializer,
        journal=log,
        **options,
    )
    if state.begun:
        run.loop.take_over(state.epoch + 1)
    else:
        run.begin(workflow.start_event_class(**fields))
    return run


async def to_end(workflow: Workflow, log: Log, kills: list[tuple[int, bool]]):
    """Run through all the kills; the result and how often the run was taken up."""
    kills = list(kills)
    for _ in range(100):
        log.kill_at, log.stored = (log.commits + kills[0][0], kills[0][1]) if kills else (10**9, True)
        kills = kills[1:]
        if log.outcome is not None:
            return json.loads(log.outcome)
        run = open_run(workflow, log)
        try:
            await asyncio.wait_for(asyncio.shield(run.result), 10)
        except Killed:
            continue
    return json.loads(log.outcome)


def plain(state: State) -> object:
    """A state as comparable values."""
    return msgspec.to_builtins(
        state, enc_hook=lambda value: list(value) if isinstance(value, deque) else value.data, order="sorted"
    )
