"""The few calls to the Kubernetes API that the operator makes, JSON in and JSON out.

The official client finds the server and keeps the credentials fresh; its typed methods change from
release to release and know no custom resources, so the requests are made here, one path each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client, config
from kubernetes.client.rest import RESTClientObject

from perdure.control.api import API_VERSION, PLURAL
from perdure_operator import names

Json = dict[str, Any]
RUNS = f"/apis/{API_VERSION}"
# Connect, and then wait for the answer: a half-dead connection must not hold a worker for ever.
TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)


class KubeError(Exception):
    """The API server refused, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({reason}, HTTP {status})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message


class Kube:
    """Thread-safe; the requests run on threads of its own, so that they never wait for other work."""

    def __init__(self, configuration: Any, threads: int = 8) -> None:
        configuration.connection_pool_maxsize = threads
        self._configuration = configuration
        self._pool = RESTClientObject(configuration).pool_manager
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="kube")

    @classmethod
    def connect(cls, threads: int = 8) -> Kube:
        """In a pod by its service account, elsewhere by the kubeconfig."""
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(configuration, threads)

    # --- runs -------------------------------------------------------------------------------------

    async def list_runs(self, namespace: str | None) -> list[Json]:
        return await self._list(_path(RUNS, namespace, PLURAL))

    async def get_run(self, namespace: str, name: str) -> Json:
        return await self._call("GET", _path(RUNS, namespace, PLURAL, name))

    async def put_status(self, body: Mapping[str, Any], status: Json) -> Json:
        """Replace the status, if the run is still at `body`'s resourceVersion; else KubeError 409."""
        meta = body["metadata"]
        kept = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        replacement = {**body, "metadata": kept, "status": status}
        return await self._call(
            "PUT", _path(RUNS, meta["namespace"], PLURAL, meta["name"], "status"), replacement
        )

    async def put_finalizers(self, body: Mapping[str, Any], finalizers: list[str]) -> Json:
        """Replace the finalizers, if the run is still at `body`'s resourceVersion; else KubeError 409."""
        meta = body["metadata"]
        # With the resourceVersion: the patch replaces the whole list, another's finalizer with it.
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": finalizers}}
        return await self._call(
            "PATCH", _path(RUNS, meta["namespace"], PLURAL, meta["name"]), patch, patch=True
        )

    async def delete_run(self, namespace: str, name: str, uid: str) -> None:
        await self._call("DELETE", _path(RUNS, namespace, PLURAL, name), _delete_options(uid, None))

    # --- pods and nodes ---------------------------------------------------------------------------

    async def list_pods(self, namespace: str | None, run_uid: str | None = None) -> list[Json]:
        """Runner pods: of one run, or of all."""
        selector = names.RUN_UID if run_uid is None else f"{names.RUN_UID}={run_uid}"
        return await self._list(_path("/api/v1", namespace, "pods"), labelSelector=selector)

    async def get_pod(self, namespace: str, name: str) -> Json:
        return await self._call("GET", _path("/api/v1", namespace, "pods", name))

    async def create_pod(self, pod: Json) -> Json:
        return await self._call("POST", _path("/api/v1", pod["metadata"]["namespace"], "pods"), pod)

    async def delete_pod(self, namespace: str, name: str, uid: str, grace: int | None) -> Json:
        """Only if it is still that pod: its name may have been used again."""
        path = _path("/api/v1", namespace, "pods", name)
        return await self._call("DELETE", path, _delete_options(uid, grace))

    async def list_nodes(self) -> list[Json]:
        return await self._list("/api/v1/nodes")

    # --- what a run's pods need -------------------------------------------------------------------

    async def get_secret(self, namespace: str, name: str) -> Json:
        return await self._call("GET", _path("/api/v1", namespace, "secrets", name))

    async def create_secret(self, secret: Json) -> Json:
        path = _path("/api/v1", secret["metadata"]["namespace"], "secrets")
        return await self._call("POST", path, secret)

    async def put_secret(self, secret: Json) -> Json:
        meta = secret["metadata"]
        return await self._call("PUT", _path("/api/v1", meta["namespace"], "secrets", meta["name"]), secret)

    async def get_configmap(self, namespace: str, name: str) -> Json:
        return await self._call("GET", _path("/api/v1", namespace, "configmaps", name))

    async def create_configmap(self, configmap: Json) -> Json:
        path = _path("/api/v1", configmap["metadata"]["namespace"], "configmaps")
        return await self._call("POST", path, configmap)

    async def get_namespace(self, name: str) -> Json:
        return await self._call("GET", f"/api/v1/namespaces/{quote(name)}")

    async def create_event(self, event: Json) -> Json:
        path = _path("/api/v1", event["metadata"]["namespace"], "events")
        return await self._call("POST", path, event)

    # --- the one place that talks ------------------------------------------------------------------

    async def _list(self, path: str, **params: str) -> list[Json]:
        items: list[Json] = []
        params["limit"] = "500"
        while True:
            page = await self._call("GET", f"{path}?{urlencode(params)}")
            items += page.get("items") or []
            following = page["metadata"].get("continue")
            if not following:
                return items
            params["continue"] = following

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, patch: bool = False
    ) -> Json:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._request, method, path, body, patch)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None, patch: bool) -> Json:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if patch else "application/json"
        bearer = self._configuration.auth_settings().get("BearerToken")
        if bearer is not None:
            headers["Authorization"] = bearer["value"]
        try:
            answer = self._pool.request(
                method,
                self._configuration.host + path,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=TIMEOUT,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise KubeError(
                0, "Unreachable", f"the API server didn't answer {method} {path}: {error}"
            ) from error
        content = _json(answer.data)
        if answer.status >= 400:
            reason = str(content.get("reason") or answer.reason or "Unknown")
            message = str(content.get("message") or f"{method} {path} was refused")
            raise KubeError(answer.status, reason, message)
        return content


def _json(data: bytes) -> Json:
    try:
        content = json.loads(data)
    except ValueError:
        # A proxy's error page; the status says all there is.
        return {}
    return content if isinstance(content, dict) else {}


def _path(api: str, namespace: str | None, *parts: str) -> str:
    within = (f"namespaces/{quote(namespace)}",) if namespace else ()
    return "/".join((api, *within, *(quote(part) for part in parts)))


def _delete_options(uid: str, grace: int | None) -> Json:
    options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
    return options if grace is None else {**options, "gracePeriodSeconds": grace}
