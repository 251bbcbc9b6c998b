"""How steps and signals end a runner: exits that lie, and the time that a SIGTERM leaves. Real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.bare import Make
from chaos.laptop import until


def said(notes: Path) -> list[str]:
    if not notes.exists():
        return []
    return [line.partition(" ")[2] for line in notes.read_text().splitlines()]


@pytest.mark.parametrize("code", [0, 75, 77])
def test_a_step_that_ends_its_process_has_neither_ended_nor_released_its_run(
    make: Make, notes: Path, code: int
) -> None:
    run = make("leaving:Leaves", how=str(code))
    assert run.start().wait(30) == code
    meta = run.facts().meta
    assert meta is not None
    assert (meta.outcome, meta.released) == (None, "")
    assert [one.step for one in meta.in_flight] == ["work"]
    assert not run.words.exists()
    run.take_over()
    assert run.start().wait(30) == 0
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.reason, outcome.result) == ("Completed", "at the second time")


@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])
def test_a_step_that_raises_an_exit_fails_and_its_runner_says_so(make: Make, notes: Path, how: str) -> None:
    run = make("leaving:Leaves", how=how)
    assert run.start().wait(30) == 0
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.reason == "StepFailed"
    assert outcome.failure is not None
    assert outcome.failure["exceptionType"] == f"builtins.{how}"
    assert run.last_words()["kind"] == "finished"


def test_a_laptop_starts_the_runner_again_that_a_step_ended_with_code_0(tmp_path: Path, notes: Path) -> None:
    workflows = Path(__file__).parent / "workflows"
    for name in "leaving.py", "habits.py":
        (tmp_path / name).write_text((workflows / name).read_text())
    told = subprocess.run(
        [sys.executable, "-m", "perdure.cli.main", "run", "leaving:Leaves", "--input",
         f'{{"notes": "{notes}", "how": "0"}}'],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout
    assert "at the second time" in told.stdout
    assert said(notes) == ["begin", "begin"]


def test_a_term_lets_steps_reach_a_commit_and_starts_none(make: Make, notes: Path) -> None:
    run = make("leaving:Busy", count=0)
    runner = run.start()
    until(lambda: len(said(notes)) == 2, what="user code")
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(30) == 75
    # One was left where its write was durable, the other's end is recorded, and what follows of it not begun.
    assert sorted(said(notes)) == ["commits begins", "commits cancelled", "returns begins", "returns ends"]
    meta = run.facts().meta
    assert meta is not None
    assert (meta.released, meta.outcome) == ("yield", None)
    assert run.last_words()["kind"] == "released"
    run.take_over("Disrupted")
    assert run.start().wait(60) == 0
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.result == "so far"
    assert sorted(said(notes)[4:]) == ["after", "after", "commits begins", "commits ends", "commits went on"]


def test_a_term_cancels_what_needs_longer_than_there_is(make: Make, notes: Path) -> None:
    run = make("leaving:Busy", count=1)
    runner = run.start()
    until(lambda: len(said(notes)) == 3, what="user code")
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(30) == 75
    assert "lasts cancelled" in said(notes)
    assert {"returns ends", "commits cancelled"} <= set(said(notes))
    meta = run.facts().meta
    assert meta is not None
    assert meta.released == "yield"
