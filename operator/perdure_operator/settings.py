"""What the operator is told: environment variables, set by the chart."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

PREFIX = "PERDURE_OPERATOR_"


class OperatorSettings(BaseModel):
    """Read from `PERDURE_OPERATOR_<NAME>` variables. Times are seconds.

    image: of runner pods whose run names none; the operator's own.
    redis_url: the store of runs without a `storeRef`; "" for none. A secret.
    namespaces: those whose runs this operator serves, separated by commas; none means all.
    watch_nodes: False where the operator has no right to see nodes; then each counts as ready.
    installation: kept in every run's keys, so that two installations on one Redis tell theirs apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(min_length=1)
    image_pull_policy: str = "IfNotPresent"
    redis_url: str = ""
    namespaces: tuple[str, ...] = ()
    watch_nodes: bool = True
    installation: str = ""
    workers: int = Field(default=8, ge=1)
    sweep_seconds: float = Field(default=10.0, gt=0)
    store_timeout: float = Field(default=2.0, gt=0)
    metrics_port: int = 9090
    health_port: int = 8080
    log_level: str = "INFO"

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> OperatorSettings:
        """Raises pydantic's ValidationError, which names each missing or wrong setting."""
        names = {name: PREFIX + name.upper() for name in cls.model_fields}
        return cls.model_validate({name: env[key] for name, key in names.items() if key in env})
