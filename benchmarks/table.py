"""The outcomes as a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.benchmark import Goal
from benchmarks.rounds import Outcome, Verdict


def show(outcomes: Iterable[Outcome], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("work", overflow="fold")
    for column in ("median", "quartiles"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("goal")
    table.add_column("reached", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        table.add_row(f"[bold]{outcome.benchmark.title}[/], {outcome.benchmark.unit}")
        for row in _rows(outcome):
            table.add_row(*row)
        table.add_section()
    console.print(table)


def goal_text(goal: Goal, unit: str) -> str:
    if goal.beside is None:
        return f"≤ {number(goal.at_most)} {unit}"
    quartile = ", upper quartile" if goal.upper else ""
    less = f", less {goal.less}" if goal.less else ""
    return f"≤ {ratio(goal.at_most)} of {goal.beside}{less}{quartile}"


def ratio(value: float) -> str:
    """1/20 below a half, else a factor."""
    return f"1/{1 / value:.3g}" if value < 0.5 else f"{value:.3g} ×"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def reached_text(verdict: Verdict) -> str:
    return number(verdict.reached) if verdict.goal.beside is None else ratio(verdict.reached)


def _rows(outcome: Outcome) -> list[list[str]]:
    unit = outcome.benchmark.unit
    rows = []
    for side in outcome.samples:
        spread = outcome.spread(side)
        rows.append([f"  {side}", number(spread.median), f"{number(spread.lower)} to {number(spread.upper)}"])
    for index, verdict in enumerate(outcome.verdicts):
        if index == len(rows):
            rows.append(["", "", ""])
        met = "[green]met[/]" if verdict.met else "[red]missed[/]"
        rows[index] += [goal_text(verdict.goal, unit), reached_text(verdict), met]
    return rows
