"""What `decide` sees: one picture of a run, its pods and its store, at one time.

Laptop and cluster build the same picture; DECIDE's words stand here as properties.
Times are Unix seconds as float.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from perdure.store.base import Lease, Meta
from perdure.store.durability import NOT_TOLD, Doubt


class PodState(StrEnum):
    UNSCHEDULED = "Unscheduled"
    UNACKNOWLEDGED = "Unacknowledged"  # has a node, and the kubelet has not said it saw it
    STARTING = "Starting"
    RUNNING = "Running"
    FINISHED = "Finished"  # the runner's container terminated, by the kubelet's word
    REJECTED = "Rejected"  # refused by the kubelet, no container ran
    LOST = "Lost"  # phase Failed, and no kubelet said so


@dataclass(slots=True, frozen=True)
class Pod:
    """since: when it entered this state. reason: of its waiting or terminated state, or its own."""

    name: str
    uid: str
    epoch: int
    state: PodState
    since: float
    deleting: bool = False
    node: str = ""
    node_ready: bool = True
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    disrupted: bool = False  # condition DisruptionTarget, or evicted, preempted, shut down with its node
    finished_at: float | None = None


class StoreState(StrEnum):
    READY = "Ready"
    GRACE = "Grace"  # just back: nobody's lease is judged
    UNREACHABLE = "Unreachable"
    WRONG = "Wrong"  # another store answers than the one that holds the run


@dataclass(slots=True, frozen=True)
class StoreView:
    """until: end of Grace, or since when Unreachable. trouble_until: end of the last trouble."""

    state: StoreState
    until: float = 0.0
    trouble_until: float = 0.0
    message: str = ""
    store_id: str = ""
    doubts: tuple[Doubt, ...] = (NOT_TOLD,)  # what the store may lose
    meta: Meta | None = None
    lease: Lease | None = None
    inbox_pending: int = 0
    store_now: float = 0.0
    crowd: bool = False  # so many leases fell silent at once that the store is to blame

    @property
    def answers(self) -> bool:
        return self.state in (StoreState.READY, StoreState.GRACE)


@dataclass(slots=True, frozen=True)
class Observation:
    """generation, deletion_time, finalizer: the resource's own metadata.

    refused: what is wrong with the spec that the schema can't say ("" for nothing).
    code: what the run's code is (image, source hash), kept in the status.
    """

    store: StoreView
    pods: tuple[Pod, ...] = ()
    generation: int = 1
    deletion_time: float | None = None
    finalizer: bool = True
    namespace_terminating: bool = False
    refused: str = ""
    code: dict[str, str] = field(default_factory=dict)
