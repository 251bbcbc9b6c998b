"""What a pod's JSON says of its runner. Pure.

"Gone" and "Failed" are not "dead": only the kubelet knows whether a container ended. The pod garbage
collector sets phase Failed for pods of lost nodes, whose processes may be alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.control.observation import Pod, PodState
from perdure.control.times import from_rfc3339
from perdure_operator import names

DISRUPTIONS = frozenset({"Evicted", "Preempting", "NodeShutdown", "Shutdown", "Terminated"})


def read_pod(raw: Mapping[str, Any], node_ready: bool) -> Pod | None:
    """None when the pod bears no epoch, so isn't a runner."""
    meta, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    epoch = (meta.get("labels") or {}).get(names.EPOCH, "")
    if not epoch.isdecimal():
        return None
    container = _runner(status)
    terminated = container.get("terminated") or {}
    state, since, reason, message = _state(meta, spec, status, container)
    return Pod(
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        epoch=int(epoch),
        state=state,
        since=since,
        deleting=bool(meta.get("deletionTimestamp")),
        node=spec.get("nodeName") or "",
        node_ready=node_ready,
        exit_code=terminated.get("exitCode"),
        reason=reason,
        message=message,
        disrupted=status.get("reason") in DISRUPTIONS or _is_true(status, "DisruptionTarget"),
        finished_at=_time(terminated.get("finishedAt")) if state is PodState.FINISHED else None,
    )


def _state(
    meta: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any], container: Mapping[str, Any]
) -> tuple[PodState, float, str, str]:
    created = _time(meta.get("creationTimestamp")) or 0.0
    started = _time(status.get("startTime"))
    own = (status.get("reason") or "", status.get("message") or "")
    if (ended := container.get("terminated")) is not None:
        since = _time(ended.get("finishedAt")) or started or created
        return PodState.FINISHED, since, ended.get("reason") or own[0], ended.get("message") or own[1]
    if status.get("phase") in ("Failed", "Succeeded"):
        ran = container.get("running") is not None
        refused = bool(own[0]) and not ran
        return (PodState.REJECTED if refused else PodState.LOST, started or created, *own)
    if (running := container.get("running")) is not None:
        return PodState.RUNNING, _time(running.get("startedAt")) or started or created, *own
    scheduled = _condition(status, "PodScheduled")
    if not spec.get("nodeName"):
        return (
            PodState.UNSCHEDULED,
            created,
            scheduled.get("reason") or own[0],
            scheduled.get("message") or own[1],
        )
    if started is None:
        return PodState.UNACKNOWLEDGED, _time(scheduled.get("lastTransitionTime")) or created, *own
    waiting = container.get("waiting") or {}
    return PodState.STARTING, started, waiting.get("reason") or own[0], waiting.get("message") or own[1]


def _runner(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == names.RUNNER:
            return container.get("state") or {}
    return {}


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return next((one for one in status.get("conditions") or () if one.get("type") == type_), {})


def _is_true(status: Mapping[str, Any], type_: str) -> bool:
    return _condition(status, type_).get("status") == "True"


def _time(text: str | None) -> float | None:
    return from_rfc3339(text) if text else None
