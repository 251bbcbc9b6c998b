"""What `decide` asks for. Each is harmless when repeated and when decided on an old observation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, frozen=True)
class Event:
    """A Kubernetes Event, or a line on the laptop; sent after the write it goes with succeeded."""

    reason: str
    message: str
    warning: bool = False


@dataclass(slots=True, frozen=True)
class SetStatus:
    """Write the whole new status with the resourceVersion it was decided on.

    fallbacks: smaller statuses to write in turn when one is refused as too large or invalid.
    """

    status: Any  # WorkflowRunStatus
    events: tuple[Event, ...] = ()
    fallbacks: tuple[Any, ...] = ()


@dataclass(slots=True, frozen=True)
class AddFinalizer:
    pass


@dataclass(slots=True, frozen=True)
class RemoveFinalizer:
    events: tuple[Event, ...] = ()


@dataclass(slots=True, frozen=True)
class DeleteRun:
    """The run's time to live after its end has passed."""


@dataclass(slots=True, frozen=True)
class InitStore:
    """Create the run's keys if absent; the run is re-read from the API just before."""


@dataclass(slots=True, frozen=True)
class AdvanceEpoch:
    """Fence. When the store answers OUTCOME, stop applying and look again."""

    epoch: int
    cause: str
    deleted: bool = False


@dataclass(slots=True, frozen=True)
class Finish:
    """Fence at `epoch` and set the outcome {"reason", "message"} if there is none."""

    epoch: int
    reason: str
    message: str = ""
    failure: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class SetDesired:
    desired: str


@dataclass(slots=True, frozen=True)
class CreatePod:
    epoch: int
    attempt: int
    avoid_nodes: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class DeletePod:
    """grace: seconds, None for the pod's own. Always with the uid as precondition."""

    name: str
    uid: str
    grace: int | None = None


@dataclass(slots=True, frozen=True)
class CleanStore:
    pass


@dataclass(slots=True, frozen=True)
class Requeue:
    """Look again in so many seconds, if nothing wakes the run before."""

    after: float
    error: bool = False  # use the key's own back-off instead


Action = (
    SetStatus
    | AddFinalizer
    | RemoveFinalizer
    | DeleteRun
    | InitStore
    | AdvanceEpoch
    | Finish
    | SetDesired
    | CreatePod
    | DeletePod
    | CleanStore
    | Requeue
)


@dataclass(slots=True, frozen=True)
class Decision:
    """The DECIDE row that matched, and its actions in order."""

    row: int
    actions: tuple[Action, ...]
