"""The runner pod's overlay: the part of a pod that a run may say, as Kubernetes' own types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel


class SpecModel(BaseModel):
    """What a user writes: nothing unknown, nothing converted, camelCase outside."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True, frozen=True
    )


# Kubernetes' own objects: the pod's creation checks them, so the resource keeps them as they are.
# Without a type, because the API server compares two objects of unknown fields only by the keys
# that both have, and values of no type as a whole.
KubernetesObject = Annotated[
    dict[str, Any],
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True}),
]
Quantity = Annotated[
    int | str,
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}),
]


class Resources(SpecModel):
    """What the runner's container asks for and may use."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class EnvVar(SpecModel):
    """One environment variable: a value, or where it comes from."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    value: str | None = None
    value_from: KubernetesObject | None = None


class LocalObjectReference(SpecModel):
    """The name of an object in the run's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]


class PodTemplate(SpecModel):
    """Laid over the runner pod that the operator makes; Kubernetes' own names and types."""

    labels: dict[str, str] = Field(default_factory=dict, description="Added to the pod's labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Added to the pod's annotations.")
    resources: Resources = Field(default_factory=Resources)
    env: list[EnvVar] = Field(default_factory=list, max_length=256)
    env_from: list[KubernetesObject] = Field(default_factory=list, max_length=64)
    volumes: list[KubernetesObject] = Field(default_factory=list, max_length=64)
    volume_mounts: list[KubernetesObject] = Field(
        default_factory=list, max_length=64, description="Of the runner's container."
    )
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[KubernetesObject] = Field(default_factory=list, max_length=64)
    affinity: KubernetesObject | None = None
    service_account_name: Annotated[str, Field(max_length=253)] | None = None
    image_pull_secrets: list[LocalObjectReference] = Field(default_factory=list, max_length=16)
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    security_context: KubernetesObject | None = Field(
        default=None, description="The pod's security context, laid over the operator's strict one."
    )
    termination_grace_period_seconds: Annotated[int, Field(ge=6, le=86400)] = Field(
        default=30, description="From SIGTERM to SIGKILL; steps get all of it but the last 5 seconds."
    )
