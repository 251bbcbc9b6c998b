"""What a user may get wrong on the command line: a sentence, exit status 2, no traceback, nothing started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from perdure.cli.errors import UsageError
from perdure.cli.main import main
from perdure.cli.target import parse_input, read_target

MANIFEST = """
apiVersion: perdure.dev/v1alpha1
kind: WorkflowRun
metadata: {name: documents}
spec:
  workflow:
    entrypoint: documents:Documents
    source: {configMapRef: {name: code}}
  input: {limit: 3, folder: docs}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: code}
data:
  documents.py: "x = 1"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(MANIFEST)
    (tmp_path / "my_flow.py").write_text("")
    (tmp_path / "my.flow.py").write_text("")
    return tmp_path


def perdure(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "nothing.yaml"], "there is no manifest nothing.yaml"),
        (["run", "nothing.py:Flow"], "there is no file nothing.py"),
        (["run", "my.flow.py:Flow"], "a module's name has no dots"),
        (["run", "nonsense"], "neither a manifest"),
        (["run", "my_flow.py:1st"], "package.module:NAME"),
        (["run", "run.yaml", "--name", "No Capitals"], "lower-case letters"),
        (["run", "run.yaml", "--input", "{"], "is not JSON"),
        (["run", "run.yaml", "--input", "[1]"], "must be a JSON object"),
        (["run", "run.yaml", "--input", "@gone.json"], "can't read the file"),
        (["run", "run.yaml", "--redis", "http://here"], "not a Redis URL"),
        (["send", "gone", "Answer", "{}"], "there is no run 'gone' under .perdure"),
        (["send", "gone", "Answer", "[1]"], "JSON must be a JSON object with Answer's fields"),
        (["send", "gone", "Answer", "{"], "for a file, write JSON @FILE"),
        (["send", "gone", "Answer", "{}", "--id", ""], "an event's id has"),
        (["send", "../up", "Answer", "{}"], "use 1 to 128 letters"),
        (["send", "gone", "Answer", "{}", "--redis", "http://here"], "not a Redis URL"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    assert perdure(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.startswith("Error: ")
    assert "Traceback" not in printed
    assert not list(here.glob(".perdure/runs/*/run.json"))


def test_an_invalid_manifest_says_where_what_and_what_instead(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run.yaml").write_text(MANIFEST.replace("entrypoint:", "entryPoint:"))
    assert perdure(monkeypatch, "run", "run.yaml") == 2
    assert (
        "run.yaml:7: spec.workflow.entryPoint: is not a field; did you mean entrypoint?"
        in capsys.readouterr().err
    )


def test_a_usage_error_of_the_command_is_2(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert perdure(monkeypatch, "run") == 2
    assert perdure(monkeypatch, "run", "run.yaml", "--nonsense") == 2


def test_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert perdure(monkeypatch, "version") == 0
    assert capsys.readouterr().out.strip()


def test_a_manifest_brings_its_modules_and_the_input_given_goes_over_its_own(here: Path) -> None:
    target = read_target("run.yaml", name="other", given_input='{"limit": 9}')
    assert target.modules == {"documents.py": "x = 1"}
    assert target.run.metadata.name == "other"
    assert target.run.spec.input == {"limit": 9, "folder": "docs"}
    assert target.run.spec.workflow.source is not None
    assert str(here) in target.source_path


def test_a_file_and_a_module_are_entrypoints(here: Path) -> None:
    file = read_target("my_flow.py:MyFlow", name=None, given_input=None)
    assert file.run.spec.workflow.entrypoint == "my_flow:MyFlow"
    assert file.run.metadata.name == "my-flow-myflow"
    module = read_target("package.flows:make", name=None, given_input=None)
    assert module.run.spec.workflow.entrypoint == "package.flows:make"
    assert module.run.metadata.name == "flows-make"


def test_input_comes_from_a_file_too(here: Path) -> None:
    (here / "in.json").write_text('{"folder": "x"}')
    assert parse_input("@in.json") == {"folder": "x"}


def test_input_that_is_too_large_is_refused_before_anything_starts(here: Path) -> None:
    with pytest.raises(UsageError, match="at most 32768 bytes"):
        read_target("run.yaml", name=None, given_input='{"x": "' + "y" * 40_000 + '"}')
