"""The chain again, with a write to the run's state in each step."""

from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.chain import STEPS, sides
from benchmarks.packages import OURS, THEIRS, Package


@cache
def _workflow(package: str) -> Any:
    p = Package(package)

    class Next(p.Event):  # type: ignore[name-defined]
        number: int

    class StatefulChain(p.Workflow):  # type: ignore[name-defined]
        @p.step
        async def begin(self, event: p.StartEvent) -> Next:
            return Next(number=1)

        @p.step
        async def go_on(self, ctx: p.Context, event: Next) -> Next | p.StopEvent:
            await ctx.store.set("number", event.number)
            return p.StopEvent() if event.number == STEPS - 1 else Next(number=event.number + 1)

    return StatefulChain(timeout=None)


BENCHMARK = Benchmark(
    name="chain_state",
    title=f"chain of {STEPS:,} steps, store.set in each",
    unit="µs a step",
    sides=sides(_workflow),
    goals=[Goal(OURS, 1 / 15, beside=THEIRS)],
)
