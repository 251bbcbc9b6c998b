"""What the operator writes about a run: the resource's status, at most 16 KiB."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from perdure.control.times import Time

AnyJson = Annotated[Any, WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "nullable": True})]
Truth = Literal["True", "False", "Unknown"]


class Phase(StrEnum):
    """The conditions' summary, for people."""

    PENDING = "Pending"
    RUNNING = "Running"
    WAITING = "Waiting"
    RECOVERING = "Recovering"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class StatusModel(BaseModel):
    """Unknown fields are passed over: a newer operator may have written them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Condition(StatusModel):
    """One thing that is so, isn't, or isn't known."""

    type: str
    status: Truth
    reason: str = ""
    message: str = ""
    last_transition_time: Time = 0.0
    observed_generation: int = 0


class PodRef(StatusModel):
    """The present attempt's pod."""

    name: str
    uid: str


class Progress(StatusModel):
    """How far the run is, by its last commit."""

    completed_steps: int = 0
    active_steps: list[str] = Field(default_factory=list, description="At most 8.")
    pending_events: int = 0
    last_step: str = ""
    last_progress_time: Time | None = None
    observed_time: Time | None = Field(default=None, description="When the operator read this.")


class LastCheckpoint(StatusModel):
    """The last commit seen. bytes: of snapshot and log in the store."""

    seq: int = 0
    time: Time | None = None
    bytes: int = 0


class Attempt(StatusModel):
    """One runner. reason: why it ended. recoverySeconds: from the death before it to its first progress."""

    attempt: int
    epoch: int
    node: str = ""
    start: Time | None = None
    end: Time | None = None
    reason: str = ""
    exit_code: int | None = None
    recovery_seconds: float | None = None
    predecessor_end: Time | None = Field(
        default=None, description="When the attempt before it died, as best known."
    )
    start_step_seq: int = Field(default=0, description="The seq of the last progress before it.")


class Failure(StatusModel):
    """Why the run didn't succeed."""

    reason: str
    step: str = ""
    exception_type: str = ""
    message: str = ""
    traceback: str = Field(default="", description="Its beginning and its end, at most 4 KiB.")
    exit_code: int | None = None


class ResultRef(StatusModel):
    """The result is too large for the status; the run's outcome in the store holds it."""

    field: str = "meta.outcome"
    bytes: int = 0


class EndRequest(StatusModel):
    """Someone wants the run to end. time: since when, so that the grace period has a beginning."""

    reason: Literal["Cancelled"]
    time: Time


class AvoidNode(StatusModel):
    """A node on which a runner fell silent or was refused."""

    node: str
    time: Time


class StoreTrouble(StatusModel):
    """What is wrong with the store, since when."""

    reason: str
    since: Time


class WorkflowRunStatus(StatusModel):
    """Written by the operator alone; the conditions are the contract, phase is for people."""

    observed_generation: int = 0
    conditions: list[Condition] = Field(default_factory=list)
    phase: Phase = Phase.PENDING
    start_time: Time | None = None
    completion_time: Time | None = None
    epoch: int = Field(default=0, description="The fencing token of the present attempt.")
    attempt: int = Field(default=0, description="Runners started so far.")
    failures: int = Field(default=0, description="Crashes since a step last completed or wrote state.")
    disruptions: int = Field(default=0, description="Evictions, drains and node losses so far.")
    replayed_steps: int = Field(default=0, description="Steps that a death cut off and that ran again.")
    pod_ref: PodRef | None = None
    progress: Progress = Field(default_factory=Progress)
    last_checkpoint: LastCheckpoint = Field(default_factory=LastCheckpoint)
    attempts: list[Attempt] = Field(default_factory=list, description="The last 5.")
    result: AnyJson = None
    result_ref: ResultRef | None = None
    failure: Failure | None = None
    code: dict[str, str] = Field(
        default_factory=dict, description="The image and the hash of the modules it runs."
    )
    store_id: str = Field(default="", description="The identity of the store that holds the run's state.")
    progress_seq: int = Field(default=0, description="The seq of the last progress that was counted.")
    end_requested: EndRequest | None = None
    not_before: Time | None = Field(default=None, description="No pod before this time: back-off.")
    avoid_nodes: list[AvoidNode] = Field(default_factory=list)
    cause: str = Field(default="", description="Why the present attempt was started.")
    cause_count: int = Field(default=0, description="How often in a row for that cause, without progress.")
    store_trouble: StoreTrouble | None = None
    store_restarts: int = Field(
        default=0, description="Attempts that found the store restarted, so that its last second may be lost."
    )

    def condition(self, type_: str) -> Condition | None:
        return next((one for one in self.conditions if one.type == type_), None)

    def is_true(self, type_: str) -> bool:
        found = self.condition(type_)
        return found is not None and found.status == "True"

    def with_condition(
        self, type_: str, status: Truth, reason: str, message: str = "", *, now: float, generation: int = 0
    ) -> WorkflowRunStatus:
        """A copy with that condition; its lastTransitionTime stays when the status does."""
        old = self.condition(type_)
        since = old.last_transition_time if old is not None and old.status == status else now
        new = Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message[:1024],
            last_transition_time=since,
            observed_generation=generation,
        )
        if old is None:
            return self.model_copy(update={"conditions": [*self.conditions, new]})
        kept = [new if one is old else one for one in self.conditions]
        return self.model_copy(update={"conditions": kept})

    def to_json(self) -> dict[str, Any]:
        """The status as the resource has it: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def phase_of(status: WorkflowRunStatus) -> Phase:
    """The one place where conditions become a phase."""
    succeeded = status.condition("Succeeded")
    if status.is_true("Finished"):
        if succeeded is not None and succeeded.status == "True":
            return Phase.SUCCEEDED
        cancelled = succeeded is not None and succeeded.reason == "Cancelled"
        return Phase.CANCELLED if cancelled else Phase.FAILED
    if status.is_true("Waiting"):
        return Phase.WAITING
    if status.is_true("Running"):
        return Phase.RUNNING
    return Phase.RECOVERING if status.attempt > 1 else Phase.PENDING


def read_status(raw: Any) -> WorkflowRunStatus:
    """The status as stored. A field that can't be read counts as unset: the store knows the truth."""
    if not isinstance(raw, dict):
        return WorkflowRunStatus()
    try:
        return WorkflowRunStatus.model_validate(raw)
    except ValidationError as error:
        bad = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
        return WorkflowRunStatus.model_validate({key: value for key, value in raw.items() if key not in bad})
