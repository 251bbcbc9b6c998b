"""The WorkflowRun resource: the one source of the CRD, of the laptop's manifest and of the status.

Times are Unix seconds as float in Python and RFC 3339 with microseconds in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema, field_validator

from perdure.control.problems import explain
from perdure.control.status import Condition, Phase, WorkflowRunStatus, phase_of, read_status
from perdure.control.template import PodTemplate, SpecModel

__all__ = [
    "API_VERSION",
    "FINALIZER",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Checkpoint",
    "Condition",
    "KeysRef",
    "Metadata",
    "Phase",
    "PodTemplate",
    "Recovery",
    "StoreRef",
    "WorkflowRef",
    "WorkflowRun",
    "WorkflowRunSpec",
    "WorkflowRunStatus",
    "phase_of",
    "read_run",
    "read_status",
]

GROUP = "perdure.dev"
VERSION = "v1alpha1"
API_VERSION: Final = "perdure.dev/v1alpha1"
KIND: Final = "WorkflowRun"
PLURAL = "workflowruns"
FINALIZER = "perdure.dev/state"

MAX_INPUT_BYTES = 32 * 1024
ENTRYPOINT = r"^[A-Za-z0-9_.-]+:[A-Za-z_][A-Za-z0-9_]*$"
NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

JsonObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]


class ConfigMapRef(SpecModel):
    """A ConfigMap in the run's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]


class Source(SpecModel):
    """Modules put on the Python path, without an image of one's own."""

    config_map_ref: ConfigMapRef = Field(
        description="Its keys are module files; copied when the run is accepted, so later edits don't reach it."
    )


class WorkflowRef(SpecModel):
    """Which workflow to run, and the image and modules that hold it."""

    entrypoint: Annotated[str, Field(pattern=ENTRYPOINT, max_length=512)] = Field(
        description=(
            "package.module:NAME, where NAME is a Workflow class that needs no arguments, an instance, "
            "or a function without arguments that returns one."
        )
    )
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        default=None, description="The runner's image; the operator's own by default."
    )
    source: Source | None = None


class StoreRef(SpecModel):
    """The key of a Secret, in the run's namespace, that holds the Redis URL."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253)] = "url"


class KeysRef(SpecModel):
    """The key of a Secret, in the run's namespace, that holds encryption keys."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253)] = "keys"


class Checkpoint(SpecModel):
    """How the run's state is made durable."""

    durability: Literal["Strict", "Relaxed"] = Field(
        default="Strict",
        description="Strict: a write of state is durable when its await returns. Relaxed: the last 100 ms may be lost.",
    )
    max_bytes: Annotated[int, Field(ge=1024, le=512 * 1024 * 1024)] = Field(
        default=64 * 1024 * 1024, description="Limit of one record, and of the snapshot, in bytes."
    )
    serializer: Literal["JSON", "Pickle"] = "JSON"
    replicas: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0,
        description=(
            "How many replicas of Redis must have a commit, in memory, before the run goes on from it; it waits while "
            "there are fewer. 0: a failover may lose what was not replicated yet."
        ),
    )
    compression: Literal["None", "Zstd"] = Field(
        default="None", description="Of snapshots, and of records from 4 KiB on."
    )
    encryption_keys_ref: KeysRef | None = Field(
        default=None,
        description=(
            "AES-256 keys as ID:BASE64, one a line: the first encrypts records and snapshots, all decrypt. "
            "Result and events are not encrypted."
        ),
    )


class Recovery(SpecModel):
    """When a runner that died is replaced, and when that is given up."""

    max_failures: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=6,
        description=(
            "Crashes since a step last completed or wrote state, and cuts of one and the same "
            "invocation, that end the run."
        ),
    )
    max_disruptions: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Evictions, drains and node losses that end the run; no limit by default.",
    )
    backoff_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=1, description="Pause after the first failure; doubles with each."
    )
    max_backoff_seconds: Annotated[int, Field(ge=0, le=86400)] = 60
    lease_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=10, description="How long a silent runner keeps its run."
    )


class WorkflowRunSpec(SpecModel):
    """What to run, and how it survives."""

    workflow: WorkflowRef
    input: JsonObject = Field(
        default_factory=dict, description="The StartEvent's fields; at most 32 KiB of JSON."
    )
    template: PodTemplate = Field(default_factory=PodTemplate)
    store_ref: StoreRef | None = Field(
        default=None, description="Where state lives; the chart's store by default."
    )
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    desired_state: Literal["Running", "Cancelled"] = Field(
        default="Running", description="May change while the run is live; Cancelled is final."
    )
    cancel_grace_period_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=30, description="What a cancelled run's steps get to end by themselves."
    )
    recovery: Recovery = Field(default_factory=Recovery)
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="The run is deleted so long after its end; never by default."
    )
    state_retention: Literal["Delete", "Retain"] = Field(
        default="Delete", description="What becomes of the state in the store when the run is deleted."
    )

    @field_validator("input")
    @classmethod
    def _input_fits(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())
        except (TypeError, ValueError) as error:
            raise ValueError(f"is not JSON ({error}); use strings, numbers, lists and objects") from error
        if size > MAX_INPUT_BYTES:
            raise ValueError(
                f"is {size} bytes of JSON, more than the {MAX_INPUT_BYTES} allowed; "
                "put the data where a step can read it, and its place in the input"
            )
        return value


class Metadata(SpecModel):
    """The part of a resource's metadata that Perdure reads."""

    model_config = ConfigDict(extra="ignore", strict=False)

    name: Annotated[str, Field(pattern=NAME, min_length=1, max_length=52)]
    namespace: str = ""
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class WorkflowRun(SpecModel):
    """One run of a workflow that survives the death of whatever it runs on."""

    api_version: Literal["perdure.dev/v1alpha1"] = API_VERSION
    kind: Literal["WorkflowRun"] = KIND
    metadata: Metadata
    spec: WorkflowRunSpec
    status: WorkflowRunStatus = Field(default_factory=WorkflowRunStatus)

    def to_json(self) -> dict[str, Any]:
        """The resource as Kubernetes has it: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_run(body: Mapping[str, Any]) -> tuple[WorkflowRun, str]:
    """The resource as the API server gave it, and what is wrong with its spec ("" for nothing).

    Never raises for what a user wrote: a spec that can't be read is returned with its sound fields
    and defaults for the rest, so that the run can still be refused, ended and deleted.
    """
    raw = body.get("spec")
    raw = raw if isinstance(raw, Mapping) else {}
    refused = ""
    try:
        spec = WorkflowRunSpec.model_validate(dict(raw))
    except ValidationError as error:
        refused = "; ".join(str(problem) for problem in explain(error, WorkflowRunSpec, "spec"))
        spec = _sound_parts(raw)
    try:
        metadata = Metadata.model_validate(body.get("metadata") or {})
    except ValidationError as error:
        refused = refused or "; ".join(str(problem) for problem in explain(error, Metadata, "metadata"))
        known = {
            name: body["metadata"].get(field.alias or name) for name, field in Metadata.model_fields.items()
        }
        metadata = Metadata.model_construct(
            **{name: value for name, value in known.items() if value is not None}
        )
    run = WorkflowRun.model_construct(
        api_version=API_VERSION,
        kind=KIND,
        metadata=metadata,
        spec=spec,
        status=read_status(body.get("status")),
    )
    return run, refused


def _sound_parts(raw: Mapping[str, Any]) -> WorkflowRunSpec:
    sound: dict[str, Any] = {}
    for name, field in WorkflowRunSpec.model_fields.items():
        alias = field.alias or name
        if name == "workflow" or alias not in raw:
            continue
        probe = {"workflow": {"entrypoint": "none:none"}, alias: raw[alias]}
        try:
            sound[name] = getattr(WorkflowRunSpec.model_validate(probe), name)
        except ValidationError:
            continue  # the caller has the whole spec's complaint
    return WorkflowRunSpec.model_construct(workflow=WorkflowRef(entrypoint="none:none"), **sound)
