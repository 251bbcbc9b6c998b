"""Pod states, from JSON as the API server gives it."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.control.observation import Pod, PodState
from perdure_operator import names
from perdure_operator.cache import Cache, RunKey
from perdure_operator.podstate import read_pod

SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-23T12:00:01Z"}
STARTED = "2026-11-23T12:00:02Z"


def raw_pod(
    status: dict[str, Any],
    *,
    node: str | None = "n1",
    deleting: bool = False,
    uid: str = "p1",
    version: str = "10",
) -> dict[str, Any]:
    meta = {
        "name": "documents-0f1e2d3c-3",
        "namespace": "team",
        "uid": uid,
        "resourceVersion": version,
        "creationTimestamp": "2026-11-23T12:00:00Z",
        "labels": {names.RUN: "documents", names.RUN_UID: "u1", names.EPOCH: "3"},
    }
    if deleting:
        meta["deletionTimestamp"] = "2026-11-23T12:10:00Z"
    return {"metadata": meta, "spec": {"nodeName": node} if node else {}, "status": status}


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "sidecar", "state": {"running": {}}}, {"name": "runner", "state": state}]


def read(status: dict[str, Any], node: str | None = "n1", *, deleting: bool = False) -> Pod:
    pod = read_pod(raw_pod(status, node=node, deleting=deleting), node_ready=True)
    assert pod is not None
    return pod


TERMINATED = {
    "exitCode": 137,
    "reason": "OOMKilled",
    "message": '{"kind": "crash"}',
    "startedAt": STARTED,
    "finishedAt": "2026-11-23T12:05:00Z",
}


def test_a_pod_that_no_node_took_is_unscheduled_and_says_why() -> None:
    refusal = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    pod = read({"phase": "Pending", "conditions": [refusal]}, node=None)
    assert (pod.state, pod.reason, pod.message) == (PodState.UNSCHEDULED, "Unschedulable", "0/3 nodes")


def test_a_pod_with_a_node_whose_kubelet_is_silent_is_unacknowledged_since_it_was_scheduled() -> None:
    pod = read({"phase": "Pending", "conditions": [SCHEDULED]})
    assert pod.state is PodState.UNACKNOWLEDGED
    assert pod.since == 1795435201.0


def test_a_pod_that_pulls_its_image_is_starting() -> None:
    pod = read(
        {
            "phase": "Pending",
            "startTime": STARTED,
            "conditions": [SCHEDULED],
            "containerStatuses": container(
                waiting={"reason": "ImagePullBackOff", "message": "no such image"}
            ),
        }
    )
    assert (pod.state, pod.reason) == (PodState.STARTING, "ImagePullBackOff")


def test_a_running_container_is_running_since_it_started() -> None:
    status = {
        "phase": "Running",
        "startTime": STARTED,
        "containerStatuses": container(running={"startedAt": "2026-11-23T12:00:05Z"}),
    }
    pod = read(status)
    assert (pod.state, pod.since) == (PodState.RUNNING, 1795435205.0)


def test_a_terminated_container_is_finished_by_the_kubelets_word() -> None:
    pod = read(
        {"phase": "Failed", "startTime": STARTED, "containerStatuses": container(terminated=TERMINATED)}
    )
    assert (pod.state, pod.exit_code, pod.reason) == (PodState.FINISHED, 137, "OOMKilled")
    assert (pod.message, pod.finished_at) == ('{"kind": "crash"}', 1795435500.0)


def test_the_runners_container_counts_not_the_pods_phase() -> None:
    # A sidecar that goes on keeps the phase at Running.
    pod = read(
        {"phase": "Running", "startTime": STARTED, "containerStatuses": container(terminated=TERMINATED)}
    )
    assert pod.state is PodState.FINISHED


def test_failed_by_the_garbage_collector_is_lost_not_dead() -> None:
    # PodGC sets the phase of pods of a lost node; the process may be alive.
    collected = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
    for containers in ([], container(running={"startedAt": STARTED})):
        pod = read(
            {
                "phase": "Failed",
                "startTime": STARTED,
                "conditions": [SCHEDULED, collected],
                "containerStatuses": containers,
            }
        )
        assert (pod.state, pod.disrupted) == (PodState.LOST, True)


@pytest.mark.parametrize("reason", ["OutOfcpu", "UnexpectedAdmissionError", "NodeAffinity", "Evicted"])
def test_refused_by_the_kubelet_before_a_container_ran_is_rejected(reason: str) -> None:
    pod = read({"phase": "Failed", "reason": reason, "message": "Pod was rejected", "startTime": STARTED})
    assert (pod.state, pod.reason) == (PodState.REJECTED, reason)


def test_failed_with_a_reason_while_its_container_was_seen_running_is_lost() -> None:
    pod = read({"phase": "Failed", "reason": "NodeLost", "containerStatuses": container(running={})})
    assert pod.state is PodState.LOST


@pytest.mark.parametrize("reason", ["Evicted", "Preempting", "NodeShutdown", "Terminated"])
def test_evictions_and_shutdowns_are_told_from_crashes(reason: str) -> None:
    pod = read({"phase": "Failed", "reason": reason, "containerStatuses": container(terminated=TERMINATED)})
    assert (pod.state, pod.disrupted) == (PodState.FINISHED, True)
    crash = read({"phase": "Failed", "containerStatuses": container(terminated=TERMINATED)})
    assert not crash.disrupted


def test_deletion_is_a_flag_not_a_state() -> None:
    pod = read({"phase": "Running", "containerStatuses": container(running={})}, deleting=True)
    assert (pod.state, pod.deleting) == (PodState.RUNNING, True)


def test_a_pod_without_an_epoch_is_nobodys_runner() -> None:
    raw = raw_pod({})
    raw["metadata"]["labels"][names.EPOCH] = "three"
    assert read_pod(raw, node_ready=True) is None


# --- the cache ------------------------------------------------------------------------------------


def test_an_older_version_that_comes_late_doesnt_replace_a_newer_one() -> None:
    cache = Cache()
    cache.put_pod(raw_pod({"phase": "Running"}, version="12"))
    cache.put_pod(raw_pod({"phase": "Pending"}, version="9"))
    assert [pod["status"]["phase"] for pod in cache.pods("u1")] == ["Running"]


def test_a_list_removes_what_a_broken_watch_never_said_was_deleted() -> None:
    cache = Cache()
    cache.put_pod(raw_pod({}, uid="gone"))
    cache.put_pod(raw_pod({}, uid="here"))
    cache.replace_pods([raw_pod({}, uid="here")], cache.mark())
    assert [pod["metadata"]["uid"] for pod in cache.pods("u1")] == ["here"]


def test_a_list_doesnt_remove_what_came_while_it_was_on_its_way() -> None:
    cache = Cache()
    mark = cache.mark()
    cache.put_pod(raw_pod({}, uid="new"))
    cache.replace_pods([], mark)
    assert [pod["metadata"]["uid"] for pod in cache.pods("u1")] == ["new"]


def test_a_recreated_run_of_the_same_name_replaces_the_old_one() -> None:
    cache = Cache()
    old = {"metadata": {"name": "r", "namespace": "n", "uid": "x", "resourceVersion": "900"}}
    new = {"metadata": {"name": "r", "namespace": "n", "uid": "y", "resourceVersion": "5"}}
    cache.put_run(old)
    cache.put_run(new)
    cache.drop_run(RunKey("n", "r"), "x")
    assert cache.runs[RunKey("n", "r")] is new


def test_nodes_readiness_reaches_the_runs_with_pods_there() -> None:
    cache = Cache()
    cache.put_pod(raw_pod({}))
    assert cache.node_ready("n1")
    not_ready = {
        "metadata": {"name": "n1"},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    }
    assert cache.put_node(not_ready)
    assert not cache.put_node(not_ready)
    assert not cache.node_ready("n1")
    assert cache.runs_with_pods_on("n1") == [RunKey("team", "documents")]
