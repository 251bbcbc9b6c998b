"""Whatever a runner dies of, and whether or not the operator dies with it, its run ends right."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cluster.cluster import SYSTEM, Cluster
from cluster.nodes import Nodes
from cluster.runs import Pod, Run, succeeded

PROGRESS_WITHIN = 20.0
PROGRESS_WITHOUT_OPERATOR_WITHIN = 45.0
WORKERS = 4
LOST = {"LeaseExpired", "NodeLost", "PodGone"}
ENDED = {"Disrupted", *LOST}

Fault = Callable[[Run, Pod, Nodes], None]


def node_paused(run: Run, pod: Pod, nodes: Nodes) -> None:
    nodes.pause(pod.node)


def node_killed(run: Run, pod: Pod, nodes: Nodes) -> None:
    nodes.kill(pod.node)


def node_cut_off(run: Run, pod: Pod, nodes: Nodes) -> None:
    nodes.cut_off(pod.node)


def node_drained(run: Run, pod: Pod, nodes: Nodes) -> None:
    nodes.drain(pod.node)


def pod_deleted(run: Run, pod: Pod, nodes: Nodes) -> None:
    run.kubectl("delete", "pod", pod.name, "--wait=false")


def pod_deleted_by_force(run: Run, pod: Pod, nodes: Nodes) -> None:
    run.kubectl("delete", "pod", pod.name, "--force", "--grace-period=0", "--wait=false")


def runner_killed(run: Run, pod: Pod, nodes: Nodes) -> None:
    run.kubectl("exec", pod.name, "-c", "runner", "--", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")


NODE_FAULTS = [(node_killed, LOST), (node_cut_off, LOST), (node_drained, ENDED)]
# Each hits its own run alone, so one test has them side by side.
POD_FAULTS = [(pod_deleted, ENDED), (pod_deleted_by_force, ENDED), (runner_killed, {"Crashed"})]

Survive = Callable[..., None]


@pytest.fixture
def survive(
    start: Callable[..., Run],
    nodes: Nodes,
    cluster: Cluster,
    reference: Any,
    measured: Callable[[str], None],
) -> Survive:
    """Each fault strikes a run of its own in the middle; each then goes on in time, and ends right."""

    def survive(faults: list[tuple[Fault, set[str]]], *, operator_too: bool) -> None:
        within = PROGRESS_WITHOUT_OPERATOR_WITHIN if operator_too else PROGRESS_WITHIN
        runs = [start(fault.__name__.replace("_", "-")) for fault, _ in faults]
        middles = [run.wait_middle() for run in runs]
        operator = cluster.operator_pod()
        with ThreadPoolExecutor(max_workers=2 * len(faults)) as threads:
            waits, done = [], []
            for run, (fault, _), (meta, pod) in zip(runs, faults, middles, strict=True):
                waits.append(threads.submit(run.wait_progress, meta, time.monotonic(), within))
                done.append(threads.submit(fault, run, pod, nodes))
            if operator_too:
                cluster.kubectl("-n", SYSTEM, "delete", "pod", operator, "--wait=false")
            for one in done:
                one.result()
            seconds = [wait.result() for wait in waits]
        for run, (_, reasons), took in zip(runs, faults, seconds, strict=True):
            measured(f"{run.name}: progress after {took:.1f} s")
            status = run.wait_finished()
            assert succeeded(status), status
            assert status["result"] == reference
            assert status["attempt"] >= 2
            assert status["attempts"][0]["reason"] in reasons
            assert status["replayedSteps"] <= WORKERS * (status["attempt"] - 1)

    return survive


OPERATOR_TOO = pytest.mark.parametrize("operator_too", [False, True], ids=["alone", "and-the-operator-too"])


@OPERATOR_TOO
@pytest.mark.parametrize("fault", NODE_FAULTS, ids=lambda fault: fault[0].__name__)
def test_a_run_survives_a_fault_of_its_node(
    fault: tuple[Fault, set[str]], operator_too: bool, survive: Survive
) -> None:
    survive([fault], operator_too=operator_too)


def test_a_run_survives_a_paused_node_and_the_operators_death(survive: Survive) -> None:
    survive([(node_paused, LOST)], operator_too=True)


@OPERATOR_TOO
def test_runs_survive_the_faults_of_their_pods(operator_too: bool, survive: Survive) -> None:
    survive(POD_FAULTS, operator_too=operator_too)
