"""What a user may get wrong on the command line: a sentence, exit status 2, no traceback, nothing started."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import yaml

from perdure import Workflow, step
from perdure.cli.console import Console
from perdure.cli.display import BarDisplay, LineDisplay, display_for
from perdure.cli.errors import UsageError
from perdure.cli.main import main
from perdure.cli.table import print_table
from perdure.cli.target import parse_input, read_target
from perdure.control.actions import Event
from perdure.control.status import Phase
from perdure.errors import WorkflowRuntimeError
from perdure.events import StartEvent, StopEvent
from perdure.local.state import RunFolder
from perdure.run import start_event

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
    (tmp_path / "flows.py").write_text(
        "class First(Workflow): pass\nclass Second(perdure.Workflow[int]): pass\n"
    )
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
        (["run", "flows.py"], "name one, as in flows.py:First or flows.py:Second"),
        (["run", "my_flow.py"], "name one, as in my_flow.py:NAME"),
        (["run", "."], "is a folder; give a manifest in it (run.yaml)"),
        (["get", "nobody"], "there is no run 'nobody' under .perdure (there: none)"),
        (["history", "nobody"], "there is no run 'nobody' under .perdure (there: none)"),
        (["export", "nobody", "file"], "there is no run 'nobody'"),
        (["export", "nobody", "run.yaml"], "run.yaml exists"),
        (["import", "gone"], "can't read gone: No such file"),
        (["import", "run.yaml"], "isn't a whole file of perdure export"),
        (["import", "run.yaml", "--restore"], "--restore needs the --redis URL"),
        (["doctor", "--redis", "here:6379"], "not a Redis URL"),
        (
            ["doctor", "--redis", "redis://:secret@127.0.0.1:1"],
            "is it up, and is the address right? (Error 111",
        ),
        (["run", "my_flow.py:1st"], "package.module:NAME"),
        (["run", "run.yaml", "--name", "No Capitals"], "lower-case letters"),
        (["run", "run.yaml", "--input", "{"], "; for a file, give @FILE"),
        (["run", "run.yaml", "--input", "[1]"], "must be a JSON object"),
        (["run", "run.yaml", "--input", "@gone.json"], "can't read the file"),
        (["run", "run.yaml", "--redis", "http://here"], "not a Redis URL"),
        (["send", "gone", "Answer", "{}"], "there is no run 'gone' under .perdure"),
        (["send", "gone", "Answer", "[1]"], "the event must be a JSON object with Answer's fields"),
        (["send", "gone", "Answer", "{"], "the event is not JSON: Expecting property name"),
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
    assert "secret" not in printed
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


COMMANDS = ("run", "list", "get", "history", "send", "export", "import", "doctor", "version")


def test_the_help_names_every_command_whole_and_the_exit_statuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert perdure(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    listed = told.split("Commands:")[1].splitlines()[1:]
    assert [line.split()[0] for line in listed if line.strip()] == list(COMMANDS)
    assert "..." not in "".join(listed), "each in one line that isn't cut"
    for status in ("0 ", "1 ", "2 ", "130 "):
        assert f"\n    {status}" in told


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_help_of_a_command_is_plain_text_in_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert perdure(monkeypatch, command, "--help") == 0
    told = capsys.readouterr().out
    assert told.startswith("Usage: perdure")
    assert told.isascii() and "\x1b" not in told
    if command in ("run", "send", "doctor"):
        assert "  Exit status:\n    0    " in told


def test_a_command_that_is_misspelt_is_answered_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perdure(monkeypatch, "rum") == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err


def a_run(root: Path, name: str, **status: object) -> None:
    folder = RunFolder(root / ".perdure", name)
    with folder.locked():
        target = read_target("flows.py:First", name=name, given_input=None)
        run = folder.create(target.run)
        folder.write_status(run, run.status.model_copy(update=status))


def test_the_list_says_of_each_run_whether_it_lives(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perdure(monkeypatch, "list") == 0
    assert "No runs under .perdure" in capsys.readouterr().err
    a_run(here, "a-over", completion_time=1.0, phase=Phase.SUCCEEDED, start_time=0.0)
    a_run(here, "b-left", phase=Phase.RUNNING)
    a_run(here, "c-held", phase=Phase.RUNNING)
    (here / ".perdure/runs/d-odd").mkdir()
    (here / ".perdure/runs/d-odd/run.json").write_text("{")
    with RunFolder(here / ".perdure", "c-held").locked():
        assert perdure(monkeypatch, "list") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["name", "phase", "steps", "started", "workflow"]
    assert [row[:2] for row in rows[1:]] == [
        ["a-over", "Succeeded"],
        ["b-left", "Interrupted"],
        ["c-held", "Running"],
        ["d-odd", "Unreadable"],
    ]
    assert rows[1][3:] == ["1970-01-01T00:00:00Z", "flows:First"]


def test_a_run_is_printed_as_the_resource_that_it_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(here, "one", result={"words": 3})
    assert perdure(monkeypatch, "get", "one") == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert (told["kind"], told["metadata"]["name"], told["status"]["result"]) == (
        "WorkflowRun",
        "one",
        {"words": 3},
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_aligned_on_a_terminal_and_cut_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("1", "[red]" + "x" * 300), ("22", "")]
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    print_table(("number", "detail"), rows, numbers=("number",))
    assert terminal.getvalue().splitlines() == ["number  detail", "     1  " + rows[0][1], "    22"]
    monkeypatch.setattr(sys, "stdout", pipe := io.StringIO())
    print_table(("number", "detail"), rows)
    assert pipe.getvalue().splitlines() == ["number\tdetail", "1\t" + rows[0][1], "22\t"]


@pytest.mark.parametrize("width", [20, 30, 40, 56, 80, 200])
def test_the_bar_fits_its_terminal_and_never_cuts_the_figures(width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    display = BarDisplay(console, "documents-of-a-long-name")
    display._progress.update(display._task, completed=10, total=320, phase="attempt 2 takes over")
    with console.capture() as captured:
        console.print(display._progress.get_renderable())
    told = captured.get()
    assert told.count("\n") == 1
    assert "10/320" in told
    assert ("attempt 2 takes over" in told) == (width >= 56)


def test_without_a_terminal_there_are_lines_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO())
    assert isinstance(display_for(console, "run"), LineDisplay)
    monkeypatch.setenv("NO_COLOR", "1")
    quiet = Console(force_terminal=True, file=(written := io.StringIO()))
    BarDisplay(quiet, "run").event(Event("Resumed", "attempt 2 made progress", warning=True))
    assert written.getvalue() == "attempt 2 made progress\n"


class Needs(StartEvent):
    folder: str
    limit: int


class Needy(Workflow):
    @step
    async def only(self, ev: Needs) -> StopEvent:
        return StopEvent()


def test_input_that_makes_no_start_event_is_told_field_by_field_and_without_values() -> None:
    with pytest.raises(WorkflowRuntimeError) as raised:
        start_event(Needy(), {"limit": "secret"})
    told = str(raised.value)
    assert "start event of type 'Needs'" in told
    assert "folder: Field required; limit: Input should be a valid integer" in told
    assert "secret" not in told and "http" not in told and "\n" not in told


def test_keys_for_encryption_come_from_a_variable_and_are_checked_before_anything_starts(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = MANIFEST.replace("  input:", "  checkpoint: {encryptionKeysRef: {name: state-keys}}\n  input:")
    (here / "run.yaml").write_text(asked)
    monkeypatch.delenv("PERDURE_ENCRYPTION_KEYS", raising=False)
    assert perdure(monkeypatch, "run", "run.yaml") == 2
    assert (
        "the keys come from the variable PERDURE_ENCRYPTION_KEYS, which is empty" in capsys.readouterr().err
    )
    monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", "k:c2hvcnQ=")
    assert perdure(monkeypatch, "run", "run.yaml") == 2
    assert "key 1 has 5 bytes, AES-256 takes 32" in capsys.readouterr().err
    assert not list(here.glob(".perdure/runs/*/run.json"))
