"""kopf's part: the watches. Each handler only brings the cache up to date and queues a run.

No handler has state of its own and none is retried: `on.event` alone, so that kopf writes neither
annotations nor finalizers, and everything is decided from what is, not from what changed.
"""

from __future__ import annotations

from typing import Any

import kopf

from perdure.control.api import GROUP, PLURAL, VERSION
from perdure_operator import names
from perdure_operator.cache import Cache, RunKey, key_of
from perdure_operator.queue import WorkQueue
from perdure_operator.stores import Stores


def registry(
    cache: Cache, queue: WorkQueue[RunKey], stores: Stores, *, watch_nodes: bool
) -> kopf.OperatorRegistry:
    handlers = kopf.OperatorRegistry()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def run_changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        raw = _plain(body)
        key = key_of(raw)
        if type == "DELETED":
            cache.drop_run(key, raw["metadata"]["uid"])
            stores.forget(raw["metadata"]["uid"])
        else:
            cache.put_run(raw)
        queue.add(key)

    @kopf.on.event("", "v1", "pods", labels={names.RUN_UID: kopf.PRESENT}, registry=handlers)
    async def pod_changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        raw = _plain(body)
        key = cache.drop_pod(raw) if type == "DELETED" else cache.put_pod(raw)
        if key is not None:
            queue.add(key)

    if watch_nodes:

        @kopf.on.event("", "v1", "nodes", registry=handlers)
        async def node_changed(type: str | None, body: kopf.Body, **_: Any) -> None:
            raw = _plain(body)
            name = raw["metadata"]["name"]
            if type == "DELETED":
                cache.drop_node(name)
            elif not cache.put_node(raw):
                return
            for key in cache.runs_with_pods_on(name):
                queue.add(key)

    @kopf.on.login(registry=handlers)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.peering.standalone = True
        # A watch on a half-dead connection hears nothing and says nothing: the server ends each after a
        # minute, and the client when it doesn't.
        settings.watching.server_timeout = 60
        settings.watching.client_timeout = 75
        settings.watching.connect_timeout = 5
        settings.watching.inactivity_timeout = 70
        settings.watching.label_selectors["", "v1", "pods"] = names.RUN_UID
        settings.networking.connect_timeout = 5
        settings.networking.request_timeout = 30

    return handlers


def _plain(body: kopf.Body) -> dict[str, Any]:
    """kopf's view of the object as plain JSON, so that the cache doesn't hold kopf's machinery."""
    raw: dict[str, Any] = kopf_plain(body)
    return raw


def kopf_plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if hasattr(value, "items"):
        return {key: kopf_plain(one) for key, one in value.items()}
    return [kopf_plain(one) for one in value]
