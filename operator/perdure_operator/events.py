"""Kubernetes Events: the run's story, as `kubectl describe` tells it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import structlog

from perdure.control.actions import Event
from perdure.control.api import API_VERSION, KIND, Metadata
from perdure_operator.kube import Kube, KubeError

COMPONENT = "perdure-operator"
INSTANCE = os.environ.get("HOSTNAME") or COMPONENT

log = structlog.get_logger(__name__)


async def post_events(kube: Kube, meta: Metadata, events: tuple[Event, ...]) -> None:
    """An Event that can't be posted is logged: it must not keep the run from going on."""
    for event in events:
        try:
            await kube.create_event(event_json(meta, event, datetime.now(UTC)))
        except KubeError as error:
            log.warning("event not posted", run=meta.name, reason=event.reason, error=str(error))


def event_json(meta: Metadata, event: Event, now: datetime) -> dict[str, Any]:
    stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta.name}.", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "message": event.message[:1024],
        "action": event.reason,
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": INSTANCE[:128],
    }
