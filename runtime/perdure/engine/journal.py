"""The engine's side of durability: what it hands over to be made durable, and by whom.

The engine knows no store. It forms a `Batch` of the ticks that are ready together and awaits
`Journal.commit`; nothing that the batch caused shows before that returns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

# "+": an invocation of a step began; "-": it ended; "=": it wrote state, so it isn't stuck.
FlightChange = tuple[Literal["+", "-", "="], str, str]


@dataclass(slots=True)
class Batch:
    """What one commit holds.

    payload: the encoded ticks, opaque to the store.
    progress: whether a step completed or wrote state in it.
    flight: changes of the invocations in flight, as (sign, invocation id, step name).
    summary: JSON for the run's status, at most a few hundred bytes.
    outcome: JSON, given with the last batch of a run only.
    published: encoded events for readers outside.
    inbox_ack: all events of the inbox up to this id are in this batch or before it ("" for none new).
    snapshot: the whole state after this batch, given when `Journal.wants_snapshot` was true.
    strict: whether it must not be at risk in a Relaxed run either.
    completed: how many steps completed in it.
    """

    payload: bytes
    progress: bool = False
    flight: list[FlightChange] = field(default_factory=list)
    summary: bytes = b"{}"
    outcome: bytes | None = None
    published: list[bytes] = field(default_factory=list)
    snapshot: bytes | None = None
    inbox_ack: str = ""
    strict: bool = True
    completed: int = 0


class Journal(Protocol):
    """Makes batches durable, in the order in which they are given; one commit at a time."""

    @property
    def wants_snapshot(self) -> bool:
        """Whether the log has outgrown the last snapshot, so that the next batch should bring one."""
        ...

    async def commit(self, batch: Batch) -> None:
        """Return when `batch` is durable. Waits for as long as the store is away.

        Raises LeaseLostError when another holder has the run, CheckpointTooLargeError when the
        batch is over the run's limit (it was not sent, and a smaller one may follow).
        """
        ...
