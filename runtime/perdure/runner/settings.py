"""What a runner is told: one set of environment variables, for the pod and for the laptop's child."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "PERDURE_"


class RunnerSettings(BaseModel):
    """Read from `PERDURE_<NAME>` variables (`from_env`), written by whoever starts a runner (`to_env`).

    holder: unique to the pod (its UID); the process adds a random part of its own.
    redis_url and encryption_keys are secrets: the operator passes them by secretKeyRef, never as plain values.
    """

    # What a variable holds is told by nobody: some are secrets.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    namespace: str
    run: str
    uid: str
    epoch: int
    attempt: int = 1
    holder: str
    entrypoint: str
    redis_url: str = Field(repr=False)
    durability: Literal["Strict", "Relaxed"] = "Strict"
    serializer: Literal["JSON", "Pickle"] = "JSON"
    max_bytes: int = 64 * 1024 * 1024
    replicas: int = 0
    compression: Literal["None", "Zstd"] = "None"
    encryption_keys: str = Field(default="", repr=False)
    lease_seconds: float = 10.0
    grace_seconds: float = 30.0
    cancel_grace_seconds: float = 30.0
    source_path: str = ""
    termination_log: str = "/dev/termination-log"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> RunnerSettings:
        """Raises pydantic's ValidationError, which names each missing or wrong variable."""
        names = {name: PREFIX + name.upper() for name in cls.model_fields}
        return cls.model_validate({name: env[key] for name, key in names.items() if key in env})

    def to_env(self) -> dict[str, str]:
        return {PREFIX + name.upper(): str(value) for name, value in self}
