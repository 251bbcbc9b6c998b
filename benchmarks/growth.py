"""What an event of a fan-out of 10,000 costs beside one of a fan-out of 1,000."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.stopwatch import microseconds

FEW, MANY = 1_000, 10_000


def growth(name: str, title: str, workflow: Callable[[int], Any]) -> Benchmark:
    """`workflow(n)` fans out n events and joins them."""

    def an_event(number: int) -> float:
        return microseconds(workflow(number)) / number

    few, many = f"{FEW:,} events", f"{MANY:,} events"
    return Benchmark(
        name=name,
        title=title,
        unit="µs an event",
        sides={few: partial(an_event, FEW), many: partial(an_event, MANY)},
        goals=[Goal(many, 1.3, beside=few)],
    )
