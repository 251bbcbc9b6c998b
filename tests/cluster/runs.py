"""A WorkflowRun under test: started, looked at through kubectl and through its keys, and waited for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.cluster import ROOT, Cluster
from cluster.shell import run, wait_for

NAMESPACE = "perdure-tests"
SOURCES = [ROOT / "examples/documents/documents.py", *sorted(Path(__file__).parent.glob("workflows/*.py"))]
DOCUMENTS = 320


@dataclass(frozen=True, slots=True)
class Meta:
    """What of the run's `meta` the tests look at. step_seq: the seq of a step's last commit."""

    epoch: int
    step_seq: int
    fenced: int


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    uid: str
    node: str


class Run:
    """The run of that name; `start` makes it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self._uid = ""

    @classmethod
    def start(cls, cluster: Cluster, name: str, **spec: Any) -> Run:
        """Apply the manifest; `spec` is laid over that of the documents example."""
        full = {
            "workflow": {
                "entrypoint": "documents:Documents",
                "source": {"configMapRef": {"name": "workflows"}},
            },
            "input": {"limit": DOCUMENTS, "delay": 0.25},
            **spec,
        }
        manifest = {
            "apiVersion": "perdure.dev/v1alpha1",
            "kind": "WorkflowRun",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": full,
        }
        cluster.apply(manifest, NAMESPACE)
        return cls(cluster, name)

    def kubectl(self, *arguments: str, timeout: float = 120.0) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, timeout=timeout)

    def resource(self) -> Any:
        return self.cluster.get("-n", NAMESPACE, "wfr", self.name)

    def status(self) -> Any:
        return self.resource().get("status", {})

    @property
    def uid(self) -> str:
        if not self._uid:
            self._uid = self.resource()["metadata"]["uid"]
        return self._uid

    def meta(self) -> Meta:
        key = f"perdure:{NAMESPACE}:{{{self.uid}}}:meta"
        return Meta(
            *(int(value or 0) for value in self.cluster.store.hmget(key, "epoch", "stepSeq", "fenced"))
        )

    def pod(self, epoch: int) -> Pod:
        """The runner pod of that epoch, once it has a node."""
        labels = f"perdure.dev/run-uid={self.uid},perdure.dev/epoch={epoch}"

        def scheduled() -> Pod | None:
            items = self.cluster.get("-n", NAMESPACE, "pods", "-l", labels)["items"]
            if not items or not items[0]["spec"].get("nodeName"):
                return None
            meta = items[0]["metadata"]
            return Pod(meta["name"], meta["uid"], items[0]["spec"]["nodeName"])

        return wait_for(scheduled, 30, f"a pod of {self.name} with epoch {epoch} on a node")

    def wait_middle(self, commits: int = 120, within: float = 90.0) -> tuple[Meta, Pod]:
        """The run's keys and its pod once it has recorded so many documents or so."""

        def far_enough() -> Meta | None:
            meta = self.meta()
            return meta if meta.step_seq >= commits else None

        meta = wait_for(far_enough, within, f"{commits} commits by {self.name}")
        return meta, self.pod(meta.epoch)

    def wait_progress(self, past: Meta, since: float, within: float) -> float:
        """Seconds that the run stood still: until a successor of `past` had committed a step's work.

        They count from `since` (monotonic), or from the predecessor's last commit if that came later: a fault
        takes its time to strike, seconds where a busy machine is to kill a node. What the successor finds is
        not its progress, so its own commits count from its epoch's first sight.
        """
        seen, last = past, since

        def moved() -> float | None:
            nonlocal seen, last
            meta, now = self.meta(), time.monotonic()
            if meta.epoch == past.epoch:
                if meta.step_seq > seen.step_seq:
                    seen, last = meta, now
            elif meta.epoch != seen.epoch:
                seen = meta
            elif meta.step_seq > seen.step_seq:
                return now - last
            return None

        # The fault itself may take as long again.
        seconds = wait_for(
            moved, 2 * within, f"progress of {self.name} by a successor of epoch {past.epoch}", every=0.1
        )
        assert seconds <= within, f"{self.name} stood still for {seconds:.1f} s, more than {within:g} s"
        return seconds

    def wait_finished(self, within: float = 180.0) -> Any:
        """The status at the run's end, whichever end it is; by kubectl wait, as a user would."""
        self.kubectl(
            "wait",
            "--for=condition=Finished",
            f"wfr/{self.name}",
            f"--timeout={within:g}s",
            timeout=within + 10,
        )
        return self.status()

    def delete(self) -> None:
        self.kubectl("delete", "wfr", self.name, "--ignore-not-found", "--wait=false")


class NodeSideLog:
    """A pod's log, followed on its own node: it is there whatever Kubernetes does with the pod."""

    def __init__(self, pod: Pod) -> None:
        self._node = pod.node
        self._copy = f"/var/tmp/{pod.uid}.log"
        source = f"/var/log/pods/{NAMESPACE}_{pod.name}_{pod.uid}/runner/0.log"
        run(
            "docker",
            "exec",
            "-d",
            self._node,
            "sh",
            "-c",
            f"exec tail -n +1 -F {source} >{self._copy} 2>/dev/null",
        )

    def text(self) -> str:
        return run("docker", "exec", self._node, "cat", self._copy)


def condition(status: Any, name: str) -> Any:
    """The condition of that type, {} where there is none."""
    return next((one for one in status.get("conditions", []) if one["type"] == name), {})


def succeeded(status: Any) -> bool:
    return bool(condition(status, "Succeeded").get("status") == "True")
