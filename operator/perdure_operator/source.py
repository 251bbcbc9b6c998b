"""The modules that a run brings in a ConfigMap, held fast when the run is accepted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perdure.control.api import WorkflowRun
from perdure_operator import names
from perdure_operator.kube import Kube, KubeError


class SourceMissingError(Exception):
    """The ConfigMap that `workflow.source` names isn't there (yet)."""


@dataclass(slots=True, frozen=True)
class Source:
    """A ConfigMap's content. digest: of all of it, as hex."""

    data: Mapping[str, str]
    binary_data: Mapping[str, str]

    @property
    def digest(self) -> str:
        total = hashlib.sha256()
        for kind, content in (("data", self.data), ("binaryData", self.binary_data)):
            for name in sorted(content):
                for part in (kind, name, content[name]):
                    total.update(len(part.encode()).to_bytes(8, "big") + part.encode())
        return total.hexdigest()[:16]


async def read_source(kube: Kube, run: WorkflowRun) -> Source | None:
    """The run's own copy if there is one, else what the user's ConfigMap holds now; None without source.

    Raises SourceMissingError.
    """
    if run.spec.workflow.source is None:
        return None
    namespace = run.metadata.namespace
    wanted = run.spec.workflow.source.config_map_ref.name
    for name in (names.source_configmap(run.metadata), wanted):
        try:
            found = await kube.get_configmap(namespace, name)
        except KubeError as error:
            if error.status != 404:
                raise
        else:
            return Source(found.get("data") or {}, found.get("binaryData") or {})
    raise SourceMissingError(
        f"spec.workflow.source.configMapRef: ConfigMap {wanted} doesn't exist in namespace {namespace}"
    )


async def keep_source(kube: Kube, run: WorkflowRun, source: Source) -> None:
    """Make the run's copy, if there is none. It can't be changed, and goes with the run."""
    copy: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.owned(run.metadata, names.source_configmap(run.metadata)),
        "immutable": True,
        "data": dict(source.data),
        "binaryData": dict(source.binary_data),
    }
    try:
        await kube.create_configmap(copy)
    except KubeError as error:
        if error.status != 409:
            raise
