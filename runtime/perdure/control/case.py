"""One decision in the making: DECIDE's words, and the status that is being drafted."""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure.control.actions import Action, Decision, DeletePod, Event, SetStatus
from perdure.control.api import WorkflowRunSpec
from perdure.control.observation import Observation, Pod, PodState, StoreState
from perdure.control.status import (
    Attempt,
    AvoidNode,
    PodRef,
    StoreTrouble,
    Truth,
    WorkflowRunStatus,
    phase_of,
)
from perdure.store.base import Meta

KEPT_ATTEMPTS = 5
KEPT_PODS = 2
AVOID_SECONDS = 600.0
MANY_SILENT = "ManyLeasesSilent"


@dataclass(slots=True)
class Case:
    """`status` is what was read; `draft` what the next write says; `first` goes before a row's actions."""

    spec: WorkflowRunSpec
    status: WorkflowRunStatus
    obs: Observation
    now: float
    draft: WorkflowRunStatus = field(init=False)
    first: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draft = self.status

    # --- words ------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.status.epoch

    @property
    def meta(self) -> Meta | None:
        return self.obs.store.meta

    @property
    def store_epoch(self) -> int:
        return self.meta.epoch if self.meta is not None else 0

    @property
    def next_epoch(self) -> int:
        return max(self.epoch, self.store_epoch) + 1

    @property
    def lease_seconds(self) -> float:
        return float(self.spec.recovery.lease_seconds)

    @property
    def pod(self) -> Pod | None:
        return next((pod for pod in self.obs.pods if pod.epoch == self.epoch), None)

    @property
    def over(self) -> bool:
        return self.status.completion_time is not None

    @property
    def acquired(self) -> bool:
        return self.meta is not None and self.meta.epoch == self.epoch and self.meta.holder != ""

    @property
    def live(self) -> bool:
        meta, lease = self.meta, self.obs.store.lease
        return (
            self.acquired
            and meta is not None
            and lease is not None
            and lease.epoch == meta.epoch
            and lease.holder == meta.holder
            and lease.expires_in > 0
        )

    @property
    def released(self) -> str:
        return self.meta.released if self.meta is not None else ""

    @property
    def silent(self) -> bool:
        return self.acquired and not self.live and not self.released and not self.forbearing

    @property
    def forbearing(self) -> bool:
        """Nobody's lease is judged now."""
        return self.obs.store.state is not StoreState.READY or self.obs.store.crowd

    @property
    def dead(self) -> bool:
        """By the kubelet's word. A restarted one may refuse a pod whose runner lives: its lease says so."""
        state = self.pod.state if self.pod is not None else None
        return state is PodState.FINISHED or (state is PodState.REJECTED and not self.live)

    @property
    def want(self) -> str:
        return self.status.end_requested.reason if self.status.end_requested else self.spec.desired_state

    @property
    def expires_in(self) -> float:
        return self.obs.store.lease.expires_in if self.obs.store.lease is not None else 0.0

    # --- drafting ---------------------------------------------------------------------------------

    def change(self, **fields: object) -> None:
        self.draft = self.draft.model_copy(update=fields)

    def say(self, type_: str, status: Truth, reason: str, message: str = "") -> None:
        """Draft a condition."""
        self.draft = self.draft.with_condition(
            type_, status, reason, message, now=self.now, generation=self.obs.generation
        )

    def trouble(self, reason: str, message: str, event: Event | None = None) -> float:
        """Draft StoreReady=False; seconds since this trouble was first seen. `event` at first sight only."""
        known = self.status.store_trouble
        if known is not None and known.reason == reason:
            return self.now - known.since
        self.change(store_trouble=StoreTrouble(reason=reason, since=self.now))
        self.say("StoreReady", "False", reason, message)
        self.events.append(event or Event(reason, message, warning=True))
        return 0.0

    def note(self, pod: Pod) -> None:
        """Draft what is known of `pod` into its attempt."""
        attempts = [_noted(one, pod) if one.epoch == pod.epoch else one for one in self.draft.attempts]
        if attempts != self.draft.attempts:
            self.change(attempts=attempts)
        if pod.epoch == self.epoch:
            ref = PodRef(name=pod.name, uid=pod.uid)
            if self.draft.pod_ref != ref:
                self.change(pod_ref=ref)

    def avoid(self, node: str) -> None:
        fresh = [one for one in self.draft.avoid_nodes if self.now - one.time < AVOID_SECONDS]
        if node:
            fresh = [one for one in fresh if one.node != node] + [AvoidNode(node=node, time=self.now)]
        self.change(avoid_nodes=fresh[-16:])

    @property
    def avoided(self) -> tuple[str, ...]:
        return tuple(one.node for one in self.draft.avoid_nodes if self.now - one.time < AVOID_SECONDS)

    # --- deciding ---------------------------------------------------------------------------------

    def settled(self) -> WorkflowRunStatus:
        """The draft as it would be written."""
        new = self.draft.model_copy(update={"observed_generation": self.obs.generation})
        return new.model_copy(update={"phase": phase_of(new)})

    def write(self, *events: Event, fallbacks: tuple[WorkflowRunStatus, ...] = ()) -> list[Action]:
        """The draft as one status write; nothing, and no events, when it changes nothing."""
        new = self.settled()
        if new == self.status:
            return []
        return [SetStatus(new, (*self.events, *events), fallbacks)]

    def delete(self, pods: list[Pod], grace: int | None = None) -> list[Action]:
        return [DeletePod(pod.name, pod.uid, grace) for pod in pods if grace is not None or not pod.deleting]

    def decision(self, row: int, *actions: Action) -> Decision:
        """`actions`, after what earlier rows added; a condition that changed is written whatever the row."""
        written = any(isinstance(action, SetStatus) for action in actions)
        urgent = (
            self.draft.conditions != self.status.conditions
            or self.draft.pod_ref != self.status.pod_ref
            or self.draft.store_trouble != self.status.store_trouble
        )
        status = self.write() if urgent and not written else []
        return Decision(row, (*self.first, *status, *actions))


def _noted(attempt: Attempt, pod: Pod) -> Attempt:
    known: dict[str, object] = {}
    if pod.node and not attempt.node:
        known["node"] = pod.node
    if pod.state is PodState.FINISHED:
        if attempt.exit_code is None and pod.exit_code is not None:
            known["exit_code"] = pod.exit_code
        if attempt.end is None and pod.finished_at is not None:
            known["end"] = pod.finished_at
    return attempt.model_copy(update=known) if known else attempt
