"""A chain: 1,000 steps, each of which begins the next."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from benchmarks import floor
from benchmarks.benchmark import Benchmark, Goal
from benchmarks.packages import OURS, THEIRS, Package
from benchmarks.stopwatch import microseconds

STEPS = 1_000


@cache
def _workflow(package: str) -> Any:
    p = Package(package)

    class Next(p.Event):  # type: ignore[name-defined]
        number: int

    class Chain(p.Workflow):  # type: ignore[name-defined]
        @p.step
        async def begin(self, event: p.StartEvent) -> Next:
            return Next(number=1)

        @p.step
        async def go_on(self, event: Next) -> Next | p.StopEvent:
            return p.StopEvent() if event.number == STEPS - 1 else Next(number=event.number + 1)

    return Chain(timeout=None)


def _a_step(package: str) -> float:
    return microseconds(_workflow(package)) / STEPS


BENCHMARK = Benchmark(
    name="chain",
    title=f"chain of {STEPS:,} steps",
    unit="µs a step",
    sides={
        OURS: partial(_a_step, OURS),
        THEIRS: partial(_a_step, THEIRS),
        "floor": partial(floor.microseconds_a_step, STEPS),
    },
    goals=[Goal(OURS, 1 / 20, beside=THEIRS), Goal(OURS, 1 / 15, beside=THEIRS, upper=True)],
)
