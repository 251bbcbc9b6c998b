"""One picture of a run: its own words, its pods as the watches have them, and its store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure.control.api import FINALIZER, WorkflowRun, read_run, read_status
from perdure.control.observation import Observation, Pod, StoreView
from perdure.control.times import from_rfc3339
from perdure_operator.cache import Cache, key_of
from perdure_operator.kube import Kube, KubeError
from perdure_operator.podstate import read_pod
from perdure_operator.settings import OperatorSettings
from perdure_operator.source import Source, SourceMissingError, read_source
from perdure_operator.stores import Stores

# A ConfigMap applied after its run, as a file in another order has it, is waited for so long.
SOURCE_PATIENCE = 60.0


@dataclass(slots=True, frozen=True)
class Sight:
    """What one look gave: the resource as read, and the observation to decide on.

    body: the resource's JSON that `run` was read from; its resourceVersion guards the status write.
    source: the run's modules, read until the run is accepted.
    """

    body: Mapping[str, Any]
    run: WorkflowRun
    observation: Observation
    source: Source | None = None


@dataclass(slots=True)
class Observer:
    kube: Kube
    cache: Cache
    stores: Stores
    settings: OperatorSettings

    async def look(self, body: Mapping[str, Any], now: float) -> Sight:
        """Raises KubeError when the API server doesn't answer, SourceMissingError while that may change."""
        run, refused = read_run(body)
        source: Source | None = None
        code: dict[str, str] = dict(run.status.code)
        if not run.status.store_id and not refused and run.metadata.deletion_timestamp is None:
            source, code, refused = await self._code(body, run, now)
        pods = await self._pods(run)
        store = await self.stores.view(run, may_create_id=self._may_create_id(body))
        deleted = run.metadata.deletion_timestamp
        observation = Observation(
            store=store,
            pods=pods,
            generation=run.metadata.generation,
            deletion_time=from_rfc3339(deleted) if deleted else None,
            finalizer=FINALIZER in run.metadata.finalizers,
            namespace_terminating=await self._namespace_terminating(run, store),
            refused=refused,
            code=code,
        )
        return Sight(body, run, observation, source)

    async def _code(
        self, body: Mapping[str, Any], run: WorkflowRun, now: float
    ) -> tuple[Source | None, dict[str, str], str]:
        code = {"image": run.spec.workflow.image or self.settings.image}
        try:
            source = await read_source(self.kube, run)
        except SourceMissingError as error:
            if now - from_rfc3339(body["metadata"]["creationTimestamp"]) < SOURCE_PATIENCE:
                raise
            return None, code, str(error)
        if source is not None:
            code["source"] = source.digest
        return source, code, ""

    async def _pods(self, run: WorkflowRun) -> tuple[Pod, ...]:
        uid, ref = run.metadata.uid, run.status.pod_ref
        raw = self.cache.pods(uid)
        if ref is not None and not any(pod["metadata"]["uid"] == ref.uid for pod in raw):
            # "Gone" ends an attempt, so it must not be a watch's delay: the pods of another operator's
            # takeover may come later than the status that names them.
            mark = self.cache.mark()
            self.cache.replace_pods(await self.kube.list_pods(run.metadata.namespace, uid), mark, uid)
            raw = self.cache.pods(uid)
        return read_pods(raw, self.cache)

    def _may_create_id(self, body: Mapping[str, Any]) -> bool:
        """Not while a live run of the same store claims an identity: then the store was wiped.

        A new identity would turn that run's StateLost into WrongStore for ever.
        """
        mine = key_of(body)
        ref = (body.get("spec") or {}).get("storeRef")
        for key, other in self.cache.runs.items():
            if key.namespace != mine.namespace or key == mine:
                continue
            if (other.get("spec") or {}).get("storeRef") != ref:
                continue
            status = read_status(other.get("status"))
            if status.store_id and status.completion_time is None:
                return False
        return True

    async def _namespace_terminating(self, run: WorkflowRun, store: StoreView) -> bool:
        if run.metadata.deletion_timestamp is None or store.answers:
            return False
        try:
            namespace = await self.kube.get_namespace(run.metadata.namespace)
        except KubeError as error:
            if error.status in (403, 404):
                # Without the right to look, the finalizer waits its ten minutes.
                return error.status == 404
            raise
        return bool(namespace["metadata"].get("deletionTimestamp"))


def read_pods(raw: Iterable[Mapping[str, Any]], cache: Cache) -> tuple[Pod, ...]:
    """The run's pods, oldest epoch first."""
    pods = (read_pod(one, cache.node_ready((one.get("spec") or {}).get("nodeName") or "")) for one in raw)
    return tuple(sorted((pod for pod in pods if pod is not None), key=lambda pod: (pod.epoch, pod.name)))
