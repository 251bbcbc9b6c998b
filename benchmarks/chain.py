"""A chain: 1,000 steps, each of which begins the next."""

from __future__ import annotations

from collections.abc import Callable
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


def sides(workflow: Callable[[str], Any]) -> dict[str, Callable[[], float]]:
    """`workflow(package)` is a chain of STEPS, in microseconds a step, beside the floor."""

    def a_step(package: str) -> float:
        return microseconds(workflow(package)) / STEPS

    return {
        OURS: partial(a_step, OURS),
        THEIRS: partial(a_step, THEIRS),
        "floor": partial(floor.microseconds_a_step, STEPS),
    }


BENCHMARK = Benchmark(
    name="chain",
    title=f"chain of {STEPS:,} steps",
    unit="µs a step",
    sides=sides(_workflow),
    goals=[Goal(OURS, 1 / 20, beside=THEIRS), Goal(OURS, 1 / 15, beside=THEIRS, upper=True)],
)
