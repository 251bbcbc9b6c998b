"""Applying decisions: what each refusal of the API server leads to.

The API server here is a small one in memory, with resourceVersions, uids and preconditions as the real
one has them; the cluster tests run the real one.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from typing import Any

import pytest

from perdure.control.actions import (
    Action,
    AddFinalizer,
    AdvanceEpoch,
    CreatePod,
    Decision,
    DeletePod,
    Event,
    InitStore,
    RemoveFinalizer,
    Requeue,
    SetStatus,
)
from perdure.control.api import WorkflowRunStatus, read_run
from perdure.control.observation import Observation, StoreState, StoreView
from perdure.store.memory import MemoryStore
from perdure_operator import names
from perdure_operator.apply import Applier
from perdure_operator.cache import Cache, RunKey
from perdure_operator.kube import KubeError
from perdure_operator.observe import Observer, Sight
from perdure_operator.queue import Retry
from perdure_operator.settings import OperatorSettings
from perdure_operator.source import Source
from perdure_operator.stores import Stores, StoreUrlError

UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
SETTINGS = OperatorSettings(image="perdure:1", redis_url="redis://store/0")
Json = dict[str, Any]


class SmallApi:
    """Objects by (kind, namespace, name). refusals: KubeErrors to answer with, by method, in turn."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.events: list[Json] = []
        self.refusals: dict[str, list[KubeError]] = {}
        self._version = 100

    def add(self, kind: str, body: Json) -> Json:
        meta = body["metadata"]
        key = (kind, meta["namespace"], meta["name"])
        if key in self.objects:
            raise KubeError(409, "AlreadyExists", f"{kind} {meta['name']} already exists")
        stored = copy.deepcopy(body)
        stored["metadata"].setdefault("uid", f"uid-{len(self.objects)}")
        return self._bump(key, stored)

    def get(self, kind: str, namespace: str, name: str) -> Json:
        try:
            return copy.deepcopy(self.objects[kind, namespace, name])
        except KeyError:
            raise KubeError(404, "NotFound", f"{kind} {name} not found") from None

    def _bump(self, key: tuple[str, str, str], body: Json) -> Json:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = body
        return copy.deepcopy(body)

    def _refuse(self, method: str) -> None:
        waiting = self.refusals.get(method)
        if waiting:
            raise waiting.pop(0)

    def _checked(self, body: Any) -> tuple[tuple[str, str, str], Json]:
        meta = body["metadata"]
        stored = self.get("run", meta["namespace"], meta["name"])
        if stored["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise KubeError(409, "Conflict", "the object has been modified")
        return ("run", meta["namespace"], meta["name"]), stored

    async def get_run(self, namespace: str, name: str) -> Json:
        return self.get("run", namespace, name)

    async def put_status(self, body: Any, status: Json) -> Json:
        self._refuse("put_status")
        key, stored = self._checked(body)
        return self._bump(key, {**stored, "status": status})

    async def put_finalizers(self, body: Any, finalizers: list[str]) -> Json:
        key, stored = self._checked(body)
        stored["metadata"]["finalizers"] = finalizers
        return self._bump(key, stored)

    async def list_pods(self, namespace: str | None, run_uid: str | None = None) -> list[Json]:
        return [
            copy.deepcopy(body)
            for (kind, _, _), body in self.objects.items()
            if kind == "pod" and body["metadata"]["labels"][names.RUN_UID] == run_uid
        ]

    async def get_pod(self, namespace: str, name: str) -> Json:
        return self.get("pod", namespace, name)

    async def create_pod(self, pod: Json) -> Json:
        self._refuse("create_pod")
        return self.add("pod", {"kind": "Pod", **pod})

    async def delete_pod(self, namespace: str, name: str, uid: str, grace: int | None) -> Json:
        if self.get("pod", namespace, name)["metadata"]["uid"] != uid:
            raise KubeError(409, "Conflict", "the UID in the precondition is another")
        return self.objects.pop(("pod", namespace, name))

    async def get_secret(self, namespace: str, name: str) -> Json:
        return self.get("secret", namespace, name)

    async def create_secret(self, secret: Json) -> Json:
        return self.add("secret", secret)

    async def put_secret(self, secret: Json) -> Json:
        meta = secret["metadata"]
        return self._bump(("secret", meta["namespace"], meta["name"]), copy.deepcopy(secret))

    async def get_configmap(self, namespace: str, name: str) -> Json:
        return self.get("configmap", namespace, name)

    async def create_configmap(self, configmap: Json) -> Json:
        return self.add("configmap", configmap)

    async def create_event(self, event: Json) -> Json:
        self._refuse("create_event")
        self.events.append(event)
        return event


class Scene:
    """A run in the API, and an operator that looks at it."""

    def __init__(self, spec: Json | None = None, status: Json | None = None, **metadata: Any) -> None:
        self.api = SmallApi()
        self.cache = Cache()
        self.store = MemoryStore()
        kube: Any = self.api
        self.stores = Stores(kube, SETTINGS.redis_url, 2.0, open_store=lambda url: self.store)
        self.applier = Applier(kube, self.cache, self.stores, SETTINGS)
        self.observer = Observer(kube, self.cache, self.stores, SETTINGS)
        self.body = self.api.add(
            "run",
            {
                "apiVersion": "perdure.dev/v1alpha1",
                "kind": "WorkflowRun",
                "metadata": {
                    "name": "documents",
                    "namespace": "team",
                    "uid": UID,
                    "creationTimestamp": "2026-11-23T12:00:00Z",
                    **metadata,
                },
                "spec": {"workflow": {"entrypoint": "documents:workflow"}, **(spec or {})},
                "status": status or {},
            },
        )
        self.cache.put_run(self.body)

    def sight(self, source: Source | None = None) -> Sight:
        run, _ = read_run(self.body)
        return Sight(self.body, run, Observation(store=StoreView(StoreState.READY)), source)

    def apply(self, *actions: Action, sight: Sight | None = None) -> float | None:
        decision = Decision(0, actions)
        return asyncio.run(self.applier.apply(sight or self.sight(), decision))

    def status(self) -> WorkflowRunStatus:
        return read_run(self.api.get("run", "team", "documents"))[0].status

    def pod_names(self) -> list[str]:
        return [name for kind, _, name in self.api.objects if kind == "pod"]

    def someone_else_writes(self) -> None:
        key = ("run", "team", "documents")
        self.api._bump(key, self.api.objects[key])


def epoch(number: int) -> WorkflowRunStatus:
    return WorkflowRunStatus(epoch=number, attempt=number)


# --- status ---------------------------------------------------------------------------------------


def test_a_status_decided_on_an_old_resource_isnt_written() -> None:
    scene = Scene(status={"epoch": 1, "attempt": 1})
    old = scene.sight()
    scene.someone_else_writes()
    with pytest.raises(Retry):
        scene.apply(SetStatus(epoch(2), (Event("TakeoverStarted", "…"),)), CreatePod(2, 2), sight=old)
    assert scene.status().epoch == 1
    assert scene.pod_names() == []
    assert scene.api.events == []


def test_after_a_conflict_the_newest_resource_is_in_the_cache() -> None:
    scene = Scene()
    scene.someone_else_writes()
    with pytest.raises(Retry):
        scene.apply(SetStatus(epoch(2)))
    newest = scene.api.get("run", "team", "documents")["metadata"]["resourceVersion"]
    assert scene.cache.runs[RunKey("team", "documents")]["metadata"]["resourceVersion"] == newest


def test_a_run_that_is_gone_leaves_the_cache() -> None:
    scene = Scene()
    del scene.api.objects["run", "team", "documents"]
    with pytest.raises(Retry):
        scene.apply(SetStatus(epoch(2)))
    assert scene.cache.runs == {}


def test_events_tell_what_was_written_and_name_the_run() -> None:
    scene = Scene()
    scene.apply(SetStatus(epoch(2), (Event("TakeoverStarted", "the lease ended", warning=True),)))
    (event,) = scene.api.events
    assert (event["reason"], event["type"], event["message"]) == (
        "TakeoverStarted",
        "Warning",
        "the lease ended",
    )
    assert (event["involvedObject"]["uid"], event["metadata"]["namespace"]) == (UID, "team")


def test_an_event_that_cant_be_posted_doesnt_stop_the_run() -> None:
    scene = Scene()
    scene.api.refusals["create_event"] = [KubeError(403, "Forbidden", "no")]
    scene.apply(SetStatus(epoch(2), (Event("TakeoverStarted", "…"),)), CreatePod(2, 2))
    assert scene.pod_names() == ["documents-0f1e2d3c-2"]


def test_a_status_that_says_nothing_new_isnt_written() -> None:
    scene = Scene(status={"epoch": 2, "attempt": 2})
    before = scene.api.get("run", "team", "documents")["metadata"]["resourceVersion"]
    scene.apply(SetStatus(scene.status(), (Event("Again", "…"),)))
    assert scene.api.get("run", "team", "documents")["metadata"]["resourceVersion"] == before
    assert scene.api.events == []


@pytest.mark.parametrize("code", [413, 422])
def test_a_refused_status_gives_way_to_a_smaller_one(code: int) -> None:
    scene = Scene()
    scene.api.refusals["put_status"] = [KubeError(code, "Invalid", "too much")]
    scene.apply(SetStatus(epoch(2), fallbacks=(epoch(3), epoch(4))))
    assert scene.status().epoch == 3


def test_a_status_refused_in_every_size_is_an_error() -> None:
    scene = Scene()
    scene.api.refusals["put_status"] = [KubeError(422, "Invalid", "no")] * 2
    with pytest.raises(KubeError):
        scene.apply(SetStatus(epoch(2), fallbacks=(epoch(3),)))


def test_one_decision_may_write_the_resource_more_than_once() -> None:
    scene = Scene()
    scene.apply(AddFinalizer(), SetStatus(epoch(2)))
    assert scene.status().epoch == 2
    assert scene.api.get("run", "team", "documents")["metadata"]["finalizers"] == ["perdure.dev/state"]


def test_removing_our_finalizer_leaves_the_others() -> None:
    scene = Scene(finalizers=["theirs/one", "perdure.dev/state"])
    scene.apply(RemoveFinalizer())
    assert scene.api.get("run", "team", "documents")["metadata"]["finalizers"] == ["theirs/one"]


def test_the_soonest_requeue_holds() -> None:
    assert Scene().apply(Requeue(9.0), Requeue(2.0)) == 2.0
    with pytest.raises(Retry):
        Scene().apply(Requeue(2.0, error=True))


# --- pods -----------------------------------------------------------------------------------------


def test_the_pod_comes_with_a_secret_that_the_run_owns() -> None:
    scene = Scene()
    scene.apply(CreatePod(1, 1))
    secret = scene.api.get("secret", "team", "documents-0f1e2d3c-store")
    assert secret["stringData"] == {"url": "redis://store/0"}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == UID
    assert scene.pod_names() == ["documents-0f1e2d3c-1"]


def test_creating_the_same_pod_again_is_a_success() -> None:
    scene = Scene()
    scene.apply(CreatePod(1, 1))
    scene.apply(CreatePod(1, 1))
    assert scene.pod_names() == ["documents-0f1e2d3c-1"]
    assert scene.status().condition("Running") is None


@pytest.mark.parametrize(
    ("label", "value"), [(names.RUN_UID, "another-run"), (names.EPOCH, "7"), ("owner", "another-run")]
)
def test_a_pod_of_the_same_name_that_isnt_ours_is_no_success(label: str, value: str) -> None:
    scene = Scene()
    scene.apply(CreatePod(1, 1))
    other = scene.api.objects["pod", "team", "documents-0f1e2d3c-1"]
    if label == "owner":
        other["metadata"]["ownerReferences"][0]["uid"] = value
    else:
        other["metadata"]["labels"][label] = value
    with pytest.raises(Retry):
        scene.apply(CreatePod(1, 1))
    running = scene.status().condition("Running")
    assert running is not None
    assert (running.status, running.reason) == ("False", "PodNameTaken")


@pytest.mark.parametrize("code", [403, 429, 500])
def test_a_refused_pod_is_told_and_tried_again_without_being_counted(code: int) -> None:
    scene = Scene(status={"epoch": 1, "attempt": 1})
    scene.api.refusals["create_pod"] = [KubeError(code, "Forbidden", "exceeded quota: small")]
    with pytest.raises(Retry):
        scene.apply(CreatePod(1, 1))
    running = scene.status().condition("Running")
    assert running is not None
    assert (running.reason, "exceeded quota" in running.message) == ("PodRefused", True)
    assert (scene.status().failures, scene.status().disruptions) == (0, 0)


def test_a_deleted_pod_of_the_same_name_is_spared() -> None:
    scene = Scene()
    scene.apply(CreatePod(1, 1))
    scene.apply(DeletePod("documents-0f1e2d3c-1", "the-uid-of-an-earlier-one"))
    assert scene.pod_names() == ["documents-0f1e2d3c-1"]


def test_deleting_a_pod_that_is_gone_is_a_success() -> None:
    assert Scene().apply(DeletePod("documents-0f1e2d3c-1", "u"), Requeue(1.0)) == 1.0


# --- store ----------------------------------------------------------------------------------------


def test_no_keys_are_made_for_a_run_that_is_being_deleted() -> None:
    scene = Scene()
    stale = scene.sight()
    scene.api.objects["run", "team", "documents"]["metadata"]["deletionTimestamp"] = "2026-11-23T13:00:00Z"
    with pytest.raises(Retry):
        scene.apply(InitStore(), sight=stale)
    assert asyncio.run(scene.store.run("team", UID).facts()).meta is None


def test_no_keys_are_made_for_a_run_whose_name_was_given_to_another() -> None:
    scene = Scene()
    stale = scene.sight()
    scene.api.objects["run", "team", "documents"]["metadata"]["uid"] = "another"
    with pytest.raises(Retry):
        scene.apply(InitStore(), sight=stale)
    assert asyncio.run(scene.store.run("team", UID).facts()).meta is None


def test_accepting_a_run_holds_its_modules_fast() -> None:
    scene = Scene(spec={"workflow": {"entrypoint": "a:b", "source": {"configMapRef": {"name": "mine"}}}})
    scene.apply(InitStore(), sight=scene.sight(Source({"a.py": "x = 1"}, {})))
    kept = scene.api.get("configmap", "team", "documents-0f1e2d3c-source")
    assert (kept["immutable"], kept["data"]) == (True, {"a.py": "x = 1"})
    assert asyncio.run(scene.store.run("team", UID).facts()).meta is not None


def test_a_fence_that_another_operator_passed_stops_the_takeover() -> None:
    scene = Scene()
    scene.apply(InitStore(), AdvanceEpoch(5, "LeaseExpired"))
    with pytest.raises(Retry):
        scene.apply(AdvanceEpoch(2, "LeaseExpired"), CreatePod(2, 2))
    assert scene.pod_names() == []


# --- observing ------------------------------------------------------------------------------------


def look(scene: Scene) -> Sight:
    return asyncio.run(scene.observer.look(scene.body, now=1795435200.0))


def test_gone_is_only_said_of_a_pod_after_asking_the_api_server() -> None:
    scene = Scene(status={"epoch": 1, "attempt": 1, "podRef": {"name": "p", "uid": "u"}, "storeId": "s"})
    scene.api.add(
        "pod",
        {
            "metadata": {
                "name": "p",
                "namespace": "team",
                "uid": "u",
                "creationTimestamp": "2026-11-23T12:00:00Z",
                "labels": {names.RUN: "documents", names.RUN_UID: UID, names.EPOCH: "1"},
            },
            "spec": {},
            "status": {"phase": "Pending"},
        },
    )
    assert [pod.uid for pod in look(scene).observation.pods] == ["u"]


def test_the_modules_digest_is_the_runs_code() -> None:
    scene = Scene(spec={"workflow": {"entrypoint": "a:b", "source": {"configMapRef": {"name": "mine"}}}})
    scene.api.add("configmap", {"metadata": {"name": "mine", "namespace": "team"}, "data": {"a.py": "x"}})
    seen = look(scene)
    assert seen.source is not None
    assert seen.observation.code == {"image": "perdure:1", "source": seen.source.digest}


def test_a_missing_configmap_is_waited_for_and_then_told() -> None:
    scene = Scene(spec={"workflow": {"entrypoint": "a:b", "source": {"configMapRef": {"name": "mine"}}}})
    with pytest.raises(Exception, match="ConfigMap mine doesn't exist in namespace team"):
        look(scene)
    later = asyncio.run(scene.observer.look(scene.body, now=1795435200.0 + 61))
    assert "ConfigMap mine doesn't exist in namespace team" in later.observation.refused


def with_store_ref(data: Json | None) -> Scene:
    scene = Scene(spec={"storeRef": {"name": "mine", "key": "url"}})
    if data is not None:
        scene.api.add("secret", {"metadata": {"name": "mine", "namespace": "team"}, "data": data})
    return scene


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "Secret mine in namespace team doesn't exist"),
        ({"other": "eA=="}, "has no key url; its keys are: other"),
        ({"url": ""}, "key url, is empty"),
        ({"url": "//////8="}, "key url, is not text"),
    ],
)
def test_a_store_without_a_usable_url_is_unreachable_and_says_why(data: Json | None, told: str) -> None:
    store = look(with_store_ref(data)).observation.store
    assert store.state is StoreState.UNREACHABLE
    assert told in store.message


def test_a_url_that_is_none_is_told_without_showing_it() -> None:
    scene = with_store_ref({"url": base64.b64encode(b"http://:hunter2@host").decode()})

    def refuse(url: str) -> MemoryStore:
        raise ValueError("Redis URL must specify one of the following schemes")

    scene.stores.open_store = refuse
    store = look(scene).observation.store
    assert (store.state, "hunter2" in store.message) == (StoreState.UNREACHABLE, False)


def test_a_store_that_doesnt_answer_costs_one_timeout() -> None:
    scene = Scene()
    scene.stores.timeout = 0.01

    class Dead(MemoryStore):
        async def server(self, namespace: str) -> Any:
            await asyncio.Event().wait()

    scene.stores.open_store = lambda url: Dead()
    assert look(scene).observation.store.state is StoreState.UNREACHABLE


def test_an_installation_without_a_store_says_so() -> None:
    scene = Scene()
    scene.stores.default_url = ""
    with pytest.raises(StoreUrlError, match=r"spec\.storeRef"):
        asyncio.run(scene.stores.url(scene.sight().run))


def test_a_wiped_store_gets_no_new_identity_while_a_live_run_claims_the_old_one() -> None:
    scene = Scene()
    live = copy.deepcopy(scene.body)
    live["metadata"].update(name="other", uid="other-uid")
    live["status"] = {"storeId": "the-old-one"}
    scene.cache.put_run(live)
    assert look(scene).observation.store.store_id == ""
    live["status"]["completionTime"] = "2026-11-23T12:30:00Z"
    live["metadata"]["resourceVersion"] = "999"
    scene.cache.put_run(live)
    assert look(scene).observation.store.store_id != ""
