"""What one reads when a run has ended: its result or its failure, and what it took."""

from __future__ import annotations

import json
from typing import Any

from perdure.cli.console import Console
from perdure.control.api import WorkflowRun
from perdure.control.outcome import Outcome

TRACEBACK_LINES = 30


def show_result(console: Console, run: WorkflowRun, outcome: Outcome) -> None:
    """The result, and the figures of the run."""
    _print(console, _text(outcome.result))
    _print(console, "")
    figures(console, run)


def figures(console: Console, run: WorkflowRun) -> None:
    status = run.status
    rows: list[tuple[str, str]] = [
        ("attempts", str(status.attempt)),
        ("steps committed", str(status.progress.completed_steps)),
        ("steps replayed", str(status.replayed_steps)),
    ]
    for attempt in status.attempts:
        if attempt.recovery_seconds is not None:
            rows.append(
                (
                    f"attempt {attempt.attempt}: seconds from death to the next progress",
                    f"{attempt.recovery_seconds:.1f}",
                )
            )
    if status.start_time is not None and status.completion_time is not None:
        rows.append(("seconds in all", f"{status.completion_time - status.start_time:.1f}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _print(console, f"{name:<{width}}  {value}")


def show_failure(console: Console, run: WorkflowRun, outcome: Outcome | None, log: str) -> None:
    """Why the run didn't complete, with the step's traceback, cut."""
    status = run.status
    failure = status.failure
    reason = failure.reason if failure is not None else "unknown"
    message = failure.message if failure is not None else ""
    step = f" in step {failure.step}" if failure is not None and failure.step else ""
    traceback = str(outcome.failure.get("traceback") or "") if outcome is not None else ""
    if traceback:
        lines = traceback.rstrip().splitlines()
        if len(lines) > TRACEBACK_LINES:
            lines = [
                *lines[:2],
                f"  ... {len(lines) - TRACEBACK_LINES} lines left out ...",
                *lines[-TRACEBACK_LINES + 2 :],
            ]
        _print(console, "\n".join(lines))
    if reason == "InvalidSpec":
        _print(console, f"Error: {message}")
        return
    _print(console, f"Run {run.metadata.name} ended: {reason}{step}: {message}")
    figures(console, run)
    _print(console, f"The runners' logs: {log}")


def _text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False)


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
