"""What one sees while a run goes on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from perdure.cli.console import Console
from perdure.control.actions import Event
from perdure.control.observation import StoreState
from perdure.control.outcome import Summary, decode_summary
from perdure.local.supervisor import Sight

LINE_SECONDS = 2.0  # at most one progress line in so long where there is no terminal
TOLD_AT_THE_END = (
    "Completed", "StepFailed", "TimedOut", "Cancelled", "FailuresExhausted", "DisruptionsExhausted", "NoProgress",
    "CheckpointTooLarge", "CheckpointCorrupt", "StateLost", "Incompatible", "InvalidSpec",
)  # fmt: skip
QUIET = ("Accepted", "StoreReady", "Started", *TOLD_AT_THE_END)


WIDE, MEDIUM = 80, 56  # columns of a terminal
FIGURES, PHASE, BAR_AND_TIME = 2 + 18, 22, 20  # columns that they take
SHORTEST_NAME = 4


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def steps_known(summary: Summary) -> int:
    """Steps that ran, run or are queued, as far as the workflow has come."""
    return summary.completed_steps + len(summary.active_steps) + summary.pending_events


class Display(Protocol):
    def __enter__(self) -> Display: ...
    def __exit__(self, *_: object) -> None: ...
    def sight(self, sight: Sight) -> None: ...
    def event(self, event: Event) -> None: ...
    def line(self, text: str) -> None: ...


def _phase(sight: Sight) -> str:
    if sight.store.state is StoreState.UNREACHABLE:
        return "waits for Redis"
    status = sight.run.status
    running = status.condition("Running")
    if running is not None and running.status == "True":
        return f"attempt {status.attempt}"
    return "starting" if status.attempt <= 1 else f"attempt {status.attempt} takes over"


class BarDisplay:
    """A moving bar; what the workflow prints goes above it."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        # In a narrow terminal the figures are the last to go.
        wide, medium = console.width >= WIDE, console.width >= MEDIUM
        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            *([BarColumn()] if wide else []),
            TextColumn("{task.completed}/{task.total} steps"),
            *([TextColumn("{task.fields[phase]}")] if medium else []),
            *([TimeElapsedColumn()] if wide else []),
        ]
        self._progress = Progress(*columns, console=console, transient=True)
        rest = FIGURES + (PHASE if medium else 0) + (BAR_AND_TIME if wide else 0)
        shown = _cut(name, max(SHORTEST_NAME, console.width - rest))
        self._task = self._progress.add_task(shown, total=1, phase="starting")

    def __enter__(self) -> BarDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sight(self, sight: Sight) -> None:
        meta = sight.store.meta
        if meta is None:
            self._progress.update(self._task, phase=_phase(sight))
            return
        summary = decode_summary(meta.summary)
        self._progress.update(
            self._task,
            completed=summary.completed_steps,
            total=max(1, steps_known(summary)),
            phase=_phase(sight),
        )

    def event(self, event: Event) -> None:
        if event.reason not in QUIET:
            self._progress.console.print(
                event.message, style="yellow" if event.warning else "green", markup=False, highlight=False
            )

    def line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


class LineDisplay:
    """One line for each thing that happens, and now and then one for how far the run is."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._last = (-1, "")
        self._next = 0.0

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sight(self, sight: Sight) -> None:
        meta = sight.store.meta
        summary = decode_summary(meta.summary) if meta is not None else Summary()
        now = (summary.completed_steps, _phase(sight))
        if now == self._last or time.monotonic() < self._next:
            return
        self._last, self._next = now, time.monotonic() + LINE_SECONDS
        self.line(f"{self._name}: {now[0]}/{max(1, steps_known(summary))} steps, {now[1]}")

    def event(self, event: Event) -> None:
        if event.reason not in QUIET:
            self.line(f"{self._name}: {event.message}")

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def display_for(console: Console, name: str) -> Display:
    return BarDisplay(console, name) if console.is_terminal else LineDisplay(console, name)
