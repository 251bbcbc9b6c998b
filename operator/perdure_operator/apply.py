"""Carries a decision's actions out, in order; the first that fails ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from perdure.control.actions import (
    Action,
    AddFinalizer,
    AdvanceEpoch,
    CleanStore,
    CreatePod,
    Decision,
    DeletePod,
    DeleteRun,
    Finish,
    InitStore,
    RemoveFinalizer,
    Requeue,
    SetDesired,
    SetStatus,
)
from perdure.control.api import FINALIZER, WorkflowRunStatus, read_run, read_status
from perdure.control.case import Case
from perdure.control.storeside import apply_to_store, goes_on
from perdure.control.transitions import pod_refused
from perdure.store.base import Tag
from perdure.store.records import input_record
from perdure_operator import metrics, names
from perdure_operator.cache import Cache, key_of
from perdure_operator.events import post_events
from perdure_operator.kube import Kube, KubeError
from perdure_operator.observe import Sight
from perdure_operator.pods import runner_pod
from perdure_operator.queue import Retry
from perdure_operator.settings import OperatorSettings
from perdure_operator.source import keep_source
from perdure_operator.stores import Stores

log = structlog.get_logger(__name__)

OnResource = SetStatus | AddFinalizer | RemoveFinalizer


@dataclass(slots=True)
class Applier:
    kube: Kube
    cache: Cache
    stores: Stores
    settings: OperatorSettings

    async def apply(self, sight: Sight, decision: Decision) -> float | None:
        """Seconds until the run should be looked at again, None for no time of its own.

        Raises queue.Retry when the decision no longer holds, and what the API server or the store raise.
        """
        after: float | None = None
        for action in decision.actions:
            if isinstance(action, Requeue):
                if action.error:
                    raise Retry(f"row {decision.row}")
                after = action.after if after is None else min(after, action.after)
                continue
            try:
                sight = await self._one(sight, action)
            except KubeError as error:
                if error.status not in (404, 409) or not isinstance(action, OnResource):
                    raise
                await self._reread(sight)
                raise Retry(f"the run changed meanwhile: {error.message}") from error
        return after

    async def _one(self, sight: Sight, action: Action) -> Sight:
        match action:
            case SetStatus():
                return await self._set_status(sight, action)
            case AddFinalizer():
                return await self._put_finalizers(sight, [*sight.run.metadata.finalizers, FINALIZER])
            case RemoveFinalizer(events=events):
                rest = [one for one in sight.run.metadata.finalizers if one != FINALIZER]
                sight = await self._put_finalizers(sight, rest)
                await post_events(self.kube, sight.run.metadata, events)
            case DeleteRun():
                meta = sight.run.metadata
                await _gone_is_fine(self.kube.delete_run(meta.namespace, meta.name, meta.uid))
            case CreatePod():
                await self._create_pod(sight, action)
            case DeletePod():
                await self._delete_pod(sight, action)
            case InitStore():
                await self._init_store(sight)
            case AdvanceEpoch() | Finish() | SetDesired() | CleanStore():
                await self._to_store(sight, action)
            case _:
                raise NotImplementedError(f"no one carries out {action!r}")
        return sight

    # --- the resource -----------------------------------------------------------------------------

    async def _set_status(self, sight: Sight, action: SetStatus) -> Sight:
        before = sight.run.status
        for last, status in _with_last((action.status, *action.fallbacks)):
            # Compared as read back: a write that changes nothing would wake its own writer for ever.
            if read_status(status.to_json()) == before:
                return sight
            try:
                body = await self.kube.put_status(sight.body, status.to_json())
            except KubeError as error:
                if error.status not in (400, 413, 422) or last:
                    raise
                log.warning("status refused, trying a smaller one", run=_name(sight), error=str(error))
                continue
            _count(before, status)
            sight = self._adopt(sight, body)
            await post_events(self.kube, sight.run.metadata, action.events)
            return sight
        return sight

    async def _put_finalizers(self, sight: Sight, finalizers: list[str]) -> Sight:
        return self._adopt(sight, await self.kube.put_finalizers(sight.body, finalizers))

    def _adopt(self, sight: Sight, body: Mapping[str, Any]) -> Sight:
        """Go on from what the API server answered: its resourceVersion guards the next write."""
        self.cache.put_run(body)
        run, _ = read_run(body)
        return replace(sight, body=body, run=run)

    async def _reread(self, sight: Sight) -> Mapping[str, Any] | None:
        """The run as it is now; None, and dropped from the cache, when it is gone or another's."""
        meta = sight.run.metadata
        try:
            body = await self.kube.get_run(meta.namespace, meta.name)
        except KubeError as error:
            if error.status != 404:
                raise
        else:
            self.cache.put_run(body)
            if body["metadata"]["uid"] == meta.uid:
                return body
        self.cache.drop_run(key_of(sight.body), meta.uid)
        return None

    # --- the store --------------------------------------------------------------------------------

    async def _init_store(self, sight: Sight) -> None:
        body = await self._reread(sight)
        if body is None or body["metadata"].get("deletionTimestamp"):
            # The cache may lag: keys made for a deleted run would never be removed.
            raise Retry("the run is being deleted")
        if sight.source is not None:
            await keep_source(self.kube, sight.run, sight.source)
        await self._to_store(sight, InitStore())

    async def _to_store(
        self, sight: Sight, action: InitStore | AdvanceEpoch | Finish | SetDesired | CleanStore
    ) -> None:
        run = sight.run
        link = self.stores.link(await self.stores.url(run))
        try:
            async with link.turns, asyncio.timeout(self.stores.timeout):
                reply = await apply_to_store(
                    action,
                    link.store.run(run.metadata.namespace, run.metadata.uid),
                    record0=input_record(run.spec.input),
                    installation=self.settings.installation,
                )
        except TimeoutError as error:
            what = type(action).__name__
            raise Retry(f"the store didn't answer {what} within {self.stores.timeout:g} s") from error
        if not goes_on(action, reply):
            told = reply.tag if reply is not None else Tag.OK
            raise Retry(f"the store answered {told} to {type(action).__name__}")

    # --- pods -------------------------------------------------------------------------------------

    async def _create_pod(self, sight: Sight, action: CreatePod) -> None:
        run = sight.run
        await self._keep_secret(sight)
        pod = runner_pod(
            run,
            epoch=action.epoch,
            attempt=action.attempt,
            avoid_nodes=action.avoid_nodes,
            image=self.settings.image,
            image_pull_policy=self.settings.image_pull_policy,
        )
        try:
            created = await self.kube.create_pod(pod)
        except KubeError as error:
            if error.status == 409:
                created = await self.kube.get_pod(run.metadata.namespace, pod["metadata"]["name"])
                if _is_ours(created, pod):
                    self.cache.put_pod(created)
                    return
            elif error.status == 0:
                raise
            await self._refused(sight, error)
            return
        self.cache.put_pod(created)
        log.info("pod created", run=_name(sight), pod=pod["metadata"]["name"], epoch=action.epoch)

    async def _refused(self, sight: Sight, error: KubeError) -> None:
        log.warning("pod refused", run=_name(sight), error=str(error))
        code = 422 if error.status == 400 else error.status
        case = Case(sight.run.spec, sight.run.status, sight.observation, time.time())
        await self.apply(sight, pod_refused(case, code, error.message))
        raise Retry(f"pod refused: {error.message}")

    async def _keep_secret(self, sight: Sight) -> None:
        """The run's own Secret with the store's URL: the user's may be edited, renamed or elsewhere."""
        meta = sight.run.metadata
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": names.owned(meta, names.store_secret(meta)),
            "type": "Opaque",
            "stringData": {names.URL_KEY: await self.stores.url(sight.run)},
        }
        try:
            await self.kube.create_secret(secret)
        except KubeError as error:
            if error.status != 409:
                raise
            await self.kube.put_secret(secret)

    async def _delete_pod(self, sight: Sight, action: DeletePod) -> None:
        meta = sight.run.metadata
        try:
            answer = await self.kube.delete_pod(meta.namespace, action.name, action.uid, action.grace)
        except KubeError as error:
            # 409: the name has another uid by now. Either way, that pod is no more.
            if error.status not in (404, 409):
                raise
            self.cache.forget_pod(meta.uid, action.uid)
            return
        if answer.get("kind") == "Pod":
            self.cache.put_pod(answer)


def _is_ours(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the pod that has the name is this run's, of this epoch."""
    labels, mine = found["metadata"].get("labels") or {}, wanted["metadata"]["labels"]
    owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()}
    same = all(labels.get(key) == mine[key] for key in (names.RUN_UID, names.EPOCH))
    return same and mine[names.RUN_UID] in owners


async def _gone_is_fine(request: Any) -> None:
    try:
        await request
    except KubeError as error:
        if error.status not in (404, 409):
            raise


def _with_last(statuses: tuple[WorkflowRunStatus, ...]) -> list[tuple[bool, WorkflowRunStatus]]:
    return [(index == len(statuses) - 1, status) for index, status in enumerate(statuses)]


def _count(before: WorkflowRunStatus, after: WorkflowRunStatus) -> None:
    """Metrics of what a status write made so; counted once, because only one writer gets it through."""
    if after.attempt > before.attempt and after.cause:
        metrics.TAKEOVERS.labels(after.cause).inc()
    known = {one.attempt: one.recovery_seconds for one in before.attempts}
    for attempt in after.attempts:
        if attempt.recovery_seconds is not None and known.get(attempt.attempt) is None:
            metrics.RECOVERY.labels(after.cause or "Unknown").observe(attempt.recovery_seconds)


def _name(sight: Sight) -> str:
    return f"{sight.run.metadata.namespace}/{sight.run.metadata.name}"
