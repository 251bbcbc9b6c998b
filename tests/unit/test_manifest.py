"""A manifest that is wrong says where, what, and what instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.control.manifest import load_manifest, parse_manifest, read_manifest
from perdure.errors import ManifestError

GOOD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: code}
data:
  flow.py: |
    x = 1
---
apiVersion: perdure.dev/v1alpha1
kind: WorkflowRun
metadata:
  name: docs
spec:
  workflow:
    entrypoint: flow:workflow
    source: {configMapRef: {name: code}}
  input: {since: 2024-01-01, n: 3}
  recovery:
    maxFailures: 3
"""


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "run.yaml")
    return str(caught.value)


def test_a_manifest_is_read_with_what_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    assert load_manifest(path).spec.recovery.max_failures == 3
    manifest = read_manifest(str(path))
    assert manifest.run.metadata.name == "docs"
    assert manifest.config_map("code") == {"flow.py": "x = 1\n"}
    assert manifest.config_map("other") is None


def test_a_date_is_a_string_as_it_is_for_kubernetes() -> None:
    assert parse_manifest(GOOD).run.spec.input == {"since": "2024-01-01", "n": 3}


def test_a_status_in_the_file_is_passed_over() -> None:
    assert parse_manifest(GOOD + "status: {epoch: 9}\n").run.status.epoch == 0


def test_all_that_is_wrong_is_said_at_once_with_its_lines() -> None:
    text = GOOD.replace("entrypoint: flow", "entrypont: flow").replace("maxFailures: 3", "maxFailures: -3")
    assert refused(text).splitlines() == [
        "run.yaml:13: spec.workflow.entrypoint: is missing; it is required",
        "run.yaml:14: spec.workflow.entrypont: is not a field; did you mean entrypoint?",
        "run.yaml:18: spec.recovery.maxFailures: is -3; it must be at least 1",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: docs", "name: Docs_1", "run.yaml:11: metadata.name: is 'Docs_1'; use lower-case letters"),
        ("name: docs", "nam: docs", "run.yaml:10: metadata.name: is missing"),
        ("v1alpha1", "v1", "run.yaml:8: apiVersion: is 'perdure.dev/v1'; it must be perdure.dev/v1alpha1"),
        ("WorkflowRun", "WorkflowRunn", "did you mean kind: WorkflowRun?"),
        ("flow:workflow", "flow.py", "it must be package.module:NAME"),
        ("  input:", "  inptu:", "run.yaml:16: spec.inptu: is not a field; did you mean input?"),
        ("  recovery:", "  workflow:", "run.yaml:17: workflow stands here for the second time"),
        ("maxFailures: 3", "maxFailures: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_said(old: str, new: str, said: str) -> None:
    assert said in refused(GOOD.replace(old, new))


def test_files_that_hold_no_run_or_two_are_refused(tmp_path: Path) -> None:
    assert "is empty; it must hold one WorkflowRun" in refused("")
    assert "holds no WorkflowRun but ConfigMap" in refused(GOOD.split("---", maxsplit=1)[0])
    assert "holds 2 WorkflowRuns" in refused(GOOD + "---\n" + GOOD.split("---\n")[1])
    assert "run.yaml:1: is of type list; a manifest is an object" in refused("- 1")
    with pytest.raises(ManifestError, match="can't be read: No such file"):
        load_manifest(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not UTF-8"):
        load_manifest(binary)
