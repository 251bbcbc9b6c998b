"""A growing fan-out, joined by a `list[E]` parameter."""

from __future__ import annotations

from functools import cache
from typing import Any

from benchmarks.growth import FEW, MANY, growth
from benchmarks.packages import OURS, Package


@cache
def _workflow(events: int) -> Any:
    p = Package(OURS)

    class Part(p.Event):  # type: ignore[name-defined]
        number: int

    class Worked(p.Event):  # type: ignore[name-defined]
        number: int

    class ByList(p.Workflow):  # type: ignore[name-defined]
        @p.step
        async def part(self, event: p.StartEvent) -> list[Part]:
            return [Part(number=number) for number in range(events)]

        @p.step(num_workers=8)
        async def work(self, event: Part) -> Worked:
            return Worked(number=event.number)

        @p.step
        async def join(self, events: list[Worked]) -> p.StopEvent:
            return p.StopEvent(result=len(events))

    return ByList(timeout=None)


BENCHMARK = growth("growth_list", f"fan-out {FEW:,} → {MANY:,}, joined by list[E]", _workflow)
