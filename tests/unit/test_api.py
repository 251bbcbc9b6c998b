"""The WorkflowRun's models, and the CRD that is generated from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from perdure.control.api import Metadata, WorkflowRunSpec, read_run
from perdure.control.crd import FILES, MUTABLE, crd_text, generate_crd
from perdure.control.outcome import (
    Outcome,
    Summary,
    Termination,
    decode_outcome,
    decode_summary,
    decode_termination,
    encode_outcome,
    encode_summary,
    encode_termination,
)
from perdure.control.problems import explain
from perdure.control.status import (
    Condition,
    Phase,
    PodRef,
    WorkflowRunStatus,
    phase_of,
    read_status,
)

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, Any] = {"workflow": {"entrypoint": "docs.flow:workflow"}}


def body(spec: Any, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "docs", "uid": "u1"}, "spec": spec, **more}


# --- spec -----------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_design() -> None:
    spec = WorkflowRunSpec.model_validate(MINIMAL)
    recovery = spec.recovery
    assert (recovery.max_failures, recovery.max_disruptions, recovery.lease_seconds) == (6, None, 10)
    assert (recovery.backoff_seconds, recovery.max_backoff_seconds) == (1, 60)
    assert (spec.checkpoint.durability, spec.checkpoint.max_bytes) == ("Strict", 64 * 1024 * 1024)
    assert (spec.desired_state, spec.cancel_grace_period_seconds, spec.state_retention) == (
        "Running",
        30,
        "Delete",
    )
    assert spec.template.termination_grace_period_seconds == 30


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"desiredstate": "Running"}, "spec.desiredstate: is not a field; did you mean desiredState?"),
        (
            {"recovery": {"maxFailure": 1}},
            "spec.recovery.maxFailure: is not a field; did you mean maxFailures?",
        ),
        ({"recovery": {"maxFailures": 0}}, "spec.recovery.maxFailures: is 0; it must be at least 1"),
        ({"recovery": {"maxFailures": "6"}}, "spec.recovery.maxFailures: is '6'; it must be a whole number"),
        (
            {"checkpoint": {"durability": "strict"}},
            "spec.checkpoint.durability: is 'strict'; it must be Strict or Relaxed; did you mean Strict?",
        ),
        (
            {"template": {"env": [{"name": "A", "vale": "1"}]}},
            "spec.template.env[0].vale: is not a field; did you mean value?",
        ),
        (
            {"template": {"resources": {"limits": {"memory": 1.5}}}},
            "spec.template.resources.limits.memory: is 1.5; it must be a whole number or a string, as in 1Gi",
        ),
        ({"input": [1]}, "spec.input: is [1]; it must be an object (key: value)"),
        ({"suspend": True}, "spec.suspend: is not a field; those there are: workflow, input,"),
    ],
)
def test_a_wrong_spec_is_told_where_what_and_what_instead(extra: dict[str, Any], said: str) -> None:
    _, refused = read_run(body({**MINIMAL, **extra}))
    assert said in refused


def test_an_input_over_its_limit_is_refused() -> None:
    assert read_run(body({**MINIMAL, "input": {"text": "x" * (32 * 1024 - 11)}}))[1] == ""
    refused = read_run(body({**MINIMAL, "input": {"text": "x" * (32 * 1024 - 10)}}))[1]
    assert "32769 bytes" in refused


def test_a_refused_run_can_still_be_ended_and_deleted() -> None:
    wrong = {"workflow": {}, "stateRetention": "Retain", "desiredState": "Cancelled", "recovery": 3}
    run, refused = read_run(body(wrong, status={"epoch": 3, "storeId": "s"}))
    assert refused
    assert (run.spec.state_retention, run.spec.desired_state) == ("Retain", "Cancelled")
    assert run.spec.recovery.lease_seconds == 10
    assert (run.status.epoch, run.metadata.uid) == (3, "u1")


@pytest.mark.parametrize("spec", [None, 3, [], {}])
def test_a_spec_of_any_shape_raises_nothing(spec: Any) -> None:
    assert read_run(body(spec))[1]


def test_a_name_too_long_for_its_pods_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        Metadata.model_validate({"name": "x" * 53})
    assert str(explain(caught.value, Metadata, "metadata")[0]) == (
        "metadata.name: has 53 characters; at most 52 are allowed"
    )


# --- status ---------------------------------------------------------------------------------------


def test_a_status_written_and_read_is_the_same() -> None:
    status = WorkflowRunStatus(epoch=3, start_time=1_700_000_000.123457, pod_ref=PodRef(name="a", uid="b"))
    status = status.with_condition("Running", "True", "Running", now=1_700_000_001.5, generation=2)
    raw = json.loads(json.dumps(status.to_json()))
    assert raw["startTime"] == "2023-11-14T22:13:20.123457Z"
    assert read_status(raw) == status
    assert read_status(read_status(raw).to_json()) == status


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    first = WorkflowRunStatus().with_condition("Running", "False", "Starting", now=10)
    second = first.with_condition("Running", "False", "ImagePullBackOff", "no such image", now=20)
    third = second.with_condition("Running", "True", "Running", now=30)
    times = [one.condition("Running") for one in (first, second, third)]
    assert [one.last_transition_time for one in times if one is not None] == [10, 10, 30]
    assert len(third.conditions) == 1


@pytest.mark.parametrize(
    ("conditions", "attempt", "phase"),
    [
        ([], 0, Phase.PENDING),
        ([("Running", "False", "Starting")], 1, Phase.PENDING),
        ([("Running", "False", "Crashed")], 2, Phase.RECOVERING),
        ([("Running", "True", "Running")], 2, Phase.RUNNING),
        ([("Running", "True", "Running"), ("Waiting", "True", "x")], 2, Phase.WAITING),
        ([("Finished", "True", "x"), ("Succeeded", "True", "Completed")], 2, Phase.SUCCEEDED),
        ([("Finished", "True", "x"), ("Succeeded", "False", "StepFailed")], 2, Phase.FAILED),
        ([("Finished", "True", "x"), ("Succeeded", "False", "Cancelled")], 2, Phase.CANCELLED),
    ],
)
def test_the_phase_is_the_conditions_summary(
    conditions: list[tuple[str, Any, str]], attempt: int, phase: Phase
) -> None:
    made = [Condition(type=type_, status=status, reason=reason) for type_, status, reason in conditions]
    assert phase_of(WorkflowRunStatus(conditions=made, attempt=attempt)) is phase


def test_a_status_field_that_cannot_be_read_counts_as_unset() -> None:
    status = read_status({"epoch": "many", "storeId": "s", "newerField": 1, "startTime": "yesterday"})
    assert (status.epoch, status.store_id, status.start_time) == (0, "s", None)
    assert read_status("nonsense") == WorkflowRunStatus()


# --- what a runner leaves behind ------------------------------------------------------------------


def test_outcome_summary_and_last_words_come_back_as_they_went() -> None:
    outcome = Outcome("Completed", result=None, stop_event={"type": "StopEvent"})
    assert decode_outcome(encode_outcome(outcome)) == outcome
    failed = Outcome("StepFailed", "boom", failure={"step": "a", "message": "boom"})
    assert decode_outcome(encode_outcome(failed)) == failed
    summary = Summary(3, ("a", "b"), 2, "a", 1.5, 1, True, ("Answer",))
    assert decode_summary(encode_summary(summary)) == summary
    words = Termination(2, 7, "exit", "LeaseLost", "no answer")
    assert decode_termination(encode_termination(words)) == words
    told = encode_termination(replace(words, message="\N{COLLISION SYMBOL}" * 1000))
    assert len(told) <= 4096, "the kubelet would cut it, and nobody could read the rest"
    assert decode_termination(told).reason == words.reason


def test_half_a_character_does_not_stop_the_operator() -> None:
    outcome = decode_outcome(b'{"reason": "Completed", "result": "\\ud800", "message": "\\udfff"}')
    assert json.dumps([outcome.result, outcome.message], ensure_ascii=False).encode()


@pytest.mark.parametrize("when", ["1e400", "NaN", "true", "-1", '"now"', "1e99"])
def test_a_time_that_is_none_is_left_out(when: str) -> None:
    assert decode_summary(f'{{"lastProgressTime": {when}}}'.encode()).last_progress_time is None


# --- the CRD --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_committed_crd_is_the_generated_one(name: str) -> None:
    assert (ROOT / name).read_text() == crd_text(), f"{name} has drifted from the models: run `make crds`"


def test_the_crd_stays_far_below_what_apply_can_carry() -> None:
    assert len(crd_text()) < 150 * 1024


def walk(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in walk(value))]
    return [found for value in node for found in walk(value)] if isinstance(node, list) else []


def schema() -> dict[str, Any]:
    version = generate_crd()["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def test_the_schema_is_structural() -> None:
    for node in walk(schema()):
        assert not {"$ref", "$defs", "anyOf", "const", "title"} & (node.keys() - {"properties"})
        if isinstance(node.get("properties"), dict):
            assert node["type"] == "object"
            for child in node["properties"].values():
                kept = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"
                assert "type" in child or any(child.get(key) for key in kept), child


def test_every_field_of_the_spec_is_mutable_or_has_its_rule() -> None:
    spec = schema()["properties"]["spec"]
    messages = " ".join(rule["message"] for rule in spec["x-kubernetes-validations"])
    for name, child in spec["properties"].items():
        for path in [f"{name}.{inner}" for inner in child.get("properties", {})] or [name]:
            ruled = f"spec.{path} " in messages or f"spec.{path.split('.')[0]} " in messages
            assert ruled != (path in MUTABLE), path


def test_the_api_server_adds_nothing_to_a_status() -> None:
    assert not [node for node in walk(schema()["properties"]["status"]) if "default" in node]


def test_the_columns_read_well() -> None:
    version = generate_crd()["spec"]["versions"][0]
    shown = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["Phase", "Step", "Done", "Attempt", "Checkpoint", "Age"]
    assert yaml.safe_load(crd_text()) == generate_crd()
