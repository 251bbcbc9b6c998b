"""Child workflows: runs of their own inside a step, whose log is a part of their parent's.

A child has its own graph, state and loop. What it commits is one tick of its parent, opaque there: so
parent and child have one seq, one fence and one snapshot, at any depth.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.engine.invocation import Invocation
from perdure.engine.journal import Batch, FlightChange
from perdure.engine.model import Child, ChildCommit, Work

if TYPE_CHECKING:
    from perdure.engine.loop import Loop

SNAPSHOT_FLOOR = 16 * 1024  # bytes of a child's log below which its parent's log gets no snapshot of it


class Children:
    """The child workflows of an invocation: ids of all it began, those that run, its awaits of them."""

    __slots__ = ("awaits", "ids", "running")

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.running: dict[str, Loop] = {}
        self.awaits = 0

    @property
    def rest(self) -> bool:
        """Whether their step waits for them, and each of them waits in the engine."""
        return bool(self.awaits and self.running) and all(child.rests for child in self.running.values())

    @property
    def wait(self) -> bool:
        """Whether their step waits for them, and each of them for something from outside."""
        return bool(self.awaits and self.running) and all(child.waits for child in self.running.values())

    def stop(self, error: BaseException | None) -> list[asyncio.Task[None]]:
        """Their step is over: cancel those that run; returns what has to end yet."""
        children = [*self.running.values()]
        for child in children:
            child.stop(None, error)
        return [child.stopping for child in children if child.stopping is not None]


@dataclass(slots=True, frozen=True)
class Within:
    """Where a child workflow runs: in a step of `loop`, as its child of this id."""

    loop: Loop
    invocation: Invocation
    children: Children
    id: str


class ChildJournal:
    """Makes a child's batches durable as ticks of its parent."""

    def __init__(self, within: Within, log: Child | None) -> None:
        self._within = within
        self._log_bytes = sum(len(record) for record in log.records) if log is not None else 0
        self._snapshot_bytes = len(log.snapshot or b"") if log is not None else 0

    @property
    def wants_snapshot(self) -> bool:
        return self._log_bytes > max(SNAPSHOT_FLOOR, 2 * self._snapshot_bytes)

    async def commit(self, batch: Batch) -> None:
        """As `Journal` has it. Raises LeaseLostError when the step that runs the child has ended."""
        if batch.snapshot is None:
            self._log_bytes += len(batch.payload)
        else:
            self._log_bytes, self._snapshot_bytes = 0, len(batch.snapshot)
        within = self._within
        tick = ChildCommit(
            time=within.loop.now(),
            work=within.invocation.work.id,
            child=within.id,
            ticks=batch.payload if batch.snapshot is None else b"",
            snapshot=batch.snapshot,
            completed=batch.completed,
            flight=batch.flight if batch.outcome is None else [*batch.flight, *self._landed(batch)],
        )
        within.loop.commit_child(within.invocation, tick, progress=batch.progress)
        await within.loop.barrier(strict=batch.strict)

    def _landed(self, batch: Batch) -> list[FlightChange]:
        """The child has ended: none of its invocations is in flight any more."""
        log = (self._within.invocation.work.children or {}).get(self._within.id)
        begun = {name for sign, name, _ in batch.flight if sign == "+"}
        return [("-", name, "") for name in sorted(begun | (log.flight if log is not None else set()))]


def in_flight(work: Work) -> list[str]:
    """The ids of all in flight in the children of `work`, as its own run knows them."""
    children = work.children or {}
    return [f"{work.id}.{id}.{name}" for id, child in children.items() for name in sorted(child.flight)]
