"""What one sees and is told through kubectl, when all is well and when it is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from cluster.cluster import Cluster
from cluster.runs import NAMESPACE, Run, condition, succeeded
from cluster.shell import CommandFailed, wait_for

STATUS_LIMIT = 16 * 1024
SOURCE = {"configMapRef": {"name": "workflows"}}


def workflow(entrypoint: str) -> dict[str, Any]:
    return {"entrypoint": entrypoint, "source": SOURCE}


def table(text: str) -> list[dict[str, str]]:
    """kubectl's table: its columns are as wide as its header's words stand apart."""
    head, *rows = text.splitlines()
    starts = [match.start() for match in re.finditer(r"(?:^|(?<=\s\s))\S", head)]
    cuts = list(zip(starts, [*starts[1:], None], strict=True))
    names = [head[a:b].strip() for a, b in cuts]
    return [dict(zip(names, (row[a:b].strip() for a, b in cuts), strict=True)) for row in rows]


def test_a_run_reads_well_from_its_start_to_its_end(start: Callable[..., Run], reference: Any) -> None:
    run = start("telling", input={"limit": 320, "delay": 0.1})
    run.wait_middle()
    (live,) = table(wait_for(lambda: _with_progress(run), 20, "progress in kubectl get wfr"))
    assert list(live) == ["NAME", "PHASE", "STEP", "DONE", "ATTEMPT", "CHECKPOINT", "AGE"]
    assert (live["NAME"], live["PHASE"], live["STEP"], live["ATTEMPT"]) == (
        run.name,
        "Running",
        "convert",
        "1",
    )
    assert int(live["DONE"]) > 0

    status = run.wait_finished()
    assert succeeded(status)
    assert status["result"] == reference
    (ended,) = table(run.kubectl("get", "wfr", run.name))
    assert ended["PHASE"] == "Succeeded"
    # find, 320 times convert, index
    assert ended["DONE"] == "322"
    told = run.kubectl("describe", "wfr", run.name)
    events = told[told.index("\nEvents:") :]
    assert "Accepted" in events
    assert "Completed" in events or "Succeeded" in events, events


def _with_progress(run: Run) -> str:
    text = run.kubectl("get", "wfr", run.name)
    (row,) = table(text)
    # At first the step that finds the documents is the last one that was heard of.
    return text if row.get("DONE", "") not in ("", "0") and row["STEP"] == "convert" else ""


REFUSED = {
    "entrypoint without a name": ({"workflow": {"entrypoint": "documents"}}, "spec.workflow.entrypoint"),
    "no workflow": ({"workflow": None}, "spec.workflow"),
    "misspelled field": ({"recvery": {"leaseSeconds": 5}}, "recvery"),
    "lease of 0 s": ({"recovery": {"leaseSeconds": 0}}, "spec.recovery.leaseSeconds"),
    "input that is no object": ({"input": "all"}, "spec.input"),
    "unknown durability": ({"checkpoint": {"durability": "Perhaps"}}, "spec.checkpoint.durability"),
}


@pytest.mark.parametrize(("spec", "where"), REFUSED.values(), ids=REFUSED.keys())
def test_an_invalid_manifest_is_refused_and_the_message_says_where(
    spec: dict[str, Any], where: str, start: Callable[..., Run]
) -> None:
    with pytest.raises(CommandFailed) as refused:
        start("invalid", **spec)
    assert where in refused.value.errors


def test_a_name_too_long_for_its_pods_is_refused(cluster: Cluster) -> None:
    with pytest.raises(CommandFailed) as refused:
        Run.start(cluster, "n" * 53)
    assert "52" in refused.value.errors


def test_what_a_live_run_is_made_of_can_not_be_changed(start: Callable[..., Run]) -> None:
    run = start("fixed", input={"limit": 320, "delay": 0.2})
    with pytest.raises(CommandFailed) as refused:
        run.kubectl("patch", "wfr", run.name, "--type=merge", "-p", '{"spec":{"input":{"limit":5}}}')
    assert "spec.input can't change" in refused.value.errors
    assert "create a new WorkflowRun" in refused.value.errors


def failure(run: Run) -> Any:
    """The status's failure, after kubectl wait returned for it as for any end."""
    status = run.wait_finished(60)
    assert condition(status, "Succeeded")["status"] == "False"
    assert condition(status, "Succeeded")["reason"] == status["failure"]["reason"]
    return status["failure"]


HOPELESS = {
    "no such module": ("nowhere:Documents", {}, "nowhere"),
    "no such name": ("documents:Dokuments", {}, "Dokuments"),
    "not a workflow": ("failing:NotAWorkflow", {}, "NotAWorkflow"),
    "input refused by the StartEvent": ("failing:Raising", {"amount": "many"}, "amount"),
}


def test_what_can_never_work_ends_the_run_and_says_why(start: Callable[..., Run]) -> None:
    runs = [
        (start("hopeless", workflow=workflow(entrypoint), input=given), says)
        for entrypoint, given, says in HOPELESS.values()
    ]
    for run, says in runs:
        why = failure(run)
        assert why["reason"] == "InvalidSpec"
        assert says in why["message"]
        assert run.status()["attempt"] == 1, "what can't ever work was tried again"


def test_a_step_that_raises_shows_its_traceback_cut_to_size(start: Callable[..., Run]) -> None:
    run = start("raising", workflow=workflow("failing:Raising"), input={"amount": 7})
    why = failure(run)
    assert why["reason"] == "StepFailed"
    assert why["step"] == "charge"
    assert why["exceptionType"].endswith("ValueError")
    assert "card refused for 7" in why["message"]
    assert "failing.py" in why["traceback"]
    assert "ValueError" in why["traceback"]
    assert len(why["traceback"]) <= 4096
    assert len(run.kubectl("get", "wfr", run.name, "-o", "jsonpath={.status}").encode()) <= STATUS_LIMIT


STORES = {
    "nobody there": "redis://127.0.0.1:1/0",
    "a wrong password": "redis://:wrong@{host}:6379/0",
}


@pytest.mark.parametrize("url", STORES.values(), ids=STORES.keys())
def test_a_store_that_does_not_serve_is_a_condition_and_costs_nothing(
    url: str, start: Callable[..., Run], cluster: Cluster
) -> None:
    secret = "store-" + str(abs(hash(url)) % 10000)
    full = url.format(host=cluster.store.host)
    cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", secret, f"--from-literal=url={full}")
    run = start("storeless", storeRef={"name": secret, "key": "url"})

    def unavailable() -> Any:
        found = condition(run.status(), "StoreReady")
        return found if found.get("status") == "False" else None

    told = wait_for(unavailable, 30, "StoreReady=False")
    assert told["reason"] == "StoreUnavailable"
    assert "wrong" not in told["message"], "the password is in the status"
    assert run.status().get("epoch", 0) == 0


def test_a_run_waits_for_a_redis_that_is_away_for_30_seconds(
    start: Callable[..., Run], cluster: Cluster, reference: Any, measured: Callable[[str], None]
) -> None:
    run = start("patient", input={"limit": 320, "delay": 0.2})
    run.wait_middle(30)
    with cluster.store.away(30.0):
        wait_for(
            lambda: condition(run.status(), "StoreReady").get("status") == "False", 30, "StoreReady=False"
        )
    status = run.wait_finished()
    assert succeeded(status), status
    assert status["result"] == reference
    assert status["failures"] == 0
    assert status["disruptions"] == 0
    measured(f"{status['attempt']} attempts, {status['replayedSteps']} steps replayed")
