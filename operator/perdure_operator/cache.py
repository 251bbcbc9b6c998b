"""What the watches have told: runs, runner pods and nodes, as last seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perdure_operator import names

Json = Mapping[str, Any]


@dataclass(slots=True, frozen=True, order=True)
class RunKey:
    """What the queue holds: a run by its place; its uid is read when it is looked at."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Cache:
    """The newest known version of each object.

    A watch that breaks may miss deletions, so the sweep replaces the whole from a list (`replace_*`);
    what a watch brought while that list was on its way stays, as it may be newer than the list.
    """

    def __init__(self) -> None:
        self.runs: dict[RunKey, Json] = {}
        self._pods: dict[str, dict[str, Json]] = {}
        self._node_ready: dict[str, bool] = {}
        self._touched: dict[str, int] = {}
        self._clock = 0

    def mark(self) -> int:
        """Call before a list is asked for; give it to `replace_*`."""
        self._clock += 1
        return self._clock

    # --- runs -------------------------------------------------------------------------------------

    def put_run(self, body: Json) -> RunKey:
        key = key_of(body)
        if not _older(body, self.runs.get(key)):
            self.runs[key] = body
            self._touch(body)
        return key

    def drop_run(self, key: RunKey, uid: str | None = None) -> None:
        known = self.runs.get(key)
        if known is not None and uid in (None, known["metadata"]["uid"]):
            del self.runs[key]

    def replace_runs(self, bodies: Iterable[Json], mark: int) -> None:
        listed = {self.put_run(body) for body in bodies}
        for key in [key for key in self.runs if key not in listed]:
            if not self._newer(self.runs[key], mark):
                del self.runs[key]
        self._forget_ticks()

    # --- pods -------------------------------------------------------------------------------------

    def put_pod(self, body: Json) -> RunKey | None:
        """Whose it is; None when it bears no run's labels."""
        meta = body["metadata"]
        labels = meta.get("labels") or {}
        if names.RUN_UID not in labels or names.RUN not in labels:
            return None
        pods = self._pods.setdefault(labels[names.RUN_UID], {})
        if not _older(body, pods.get(meta["uid"])):
            pods[meta["uid"]] = body
            self._touch(body)
        return RunKey(meta["namespace"], labels[names.RUN])

    def drop_pod(self, body: Json) -> RunKey | None:
        meta = body["metadata"]
        labels = meta.get("labels") or {}
        self.forget_pod(labels.get(names.RUN_UID, ""), meta["uid"])
        return RunKey(meta["namespace"], labels[names.RUN]) if names.RUN in labels else None

    def forget_pod(self, run_uid: str, pod_uid: str) -> None:
        pods = self._pods.get(run_uid, {})
        pods.pop(pod_uid, None)
        if not pods:
            self._pods.pop(run_uid, None)

    def replace_pods(self, bodies: Iterable[Json], mark: int, run_uid: str | None = None) -> None:
        """All pods, or with `run_uid` those of one run."""
        listed = set()
        for body in bodies:
            listed.add(body["metadata"]["uid"])
            self.put_pod(body)
        for run in [run_uid] if run_uid is not None else list(self._pods):
            for uid, body in list(self._pods.get(run, {}).items()):
                if uid not in listed and not self._newer(body, mark):
                    self.forget_pod(run, uid)

    def pods(self, run_uid: str) -> list[Json]:
        return list(self._pods.get(run_uid, {}).values())

    def runs_with_pods_on(self, node: str) -> list[RunKey]:
        return [
            RunKey(pod["metadata"]["namespace"], pod["metadata"]["labels"][names.RUN])
            for pods in self._pods.values()
            for pod in pods.values()
            if (pod.get("spec") or {}).get("nodeName") == node
        ]

    # --- nodes ------------------------------------------------------------------------------------

    def put_node(self, body: Json) -> bool:
        """Whether its readiness changed."""
        name, ready = body["metadata"]["name"], _ready(body)
        changed = self._node_ready.get(name, True) != ready
        self._node_ready[name] = ready
        return changed

    def drop_node(self, name: str) -> None:
        self._node_ready[name] = False

    def replace_nodes(self, bodies: Iterable[Json]) -> None:
        self._node_ready = {body["metadata"]["name"]: _ready(body) for body in bodies}

    def node_ready(self, name: str) -> bool:
        """A node that was never seen counts as ready: the lease judges its runner all the same."""
        return self._node_ready.get(name, True)

    def _touch(self, body: Json) -> None:
        self._clock += 1
        self._touched[body["metadata"]["uid"]] = self._clock

    def _newer(self, body: Json, mark: int) -> bool:
        return self._touched.get(body["metadata"]["uid"], 0) > mark

    def _forget_ticks(self) -> None:
        known = {body["metadata"]["uid"] for body in self.runs.values()}
        known.update(uid for pods in self._pods.values() for uid in pods)
        self._touched = {uid: tick for uid, tick in self._touched.items() if uid in known}


def key_of(body: Json) -> RunKey:
    return RunKey(body["metadata"]["namespace"], body["metadata"]["name"])


def _older(body: Json, known: Json | None) -> bool:
    """By resourceVersion, which etcd counts up; an answer to a write may overtake the watch."""
    if known is None or known["metadata"]["uid"] != body["metadata"]["uid"]:
        return False
    new, old = (one["metadata"].get("resourceVersion", "") for one in (body, known))
    return new.isdecimal() and old.isdecimal() and int(new) < int(old)


def _ready(node: Json) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
