"""A growing fan-out, joined by `collect_events` with an `expected` list that stays the same."""

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

    expected = [Worked] * events

    class ByCollect(p.Workflow):  # type: ignore[name-defined]
        @p.step
        async def part(self, ctx: p.Context, event: p.StartEvent) -> Part | None:
            for number in range(events):
                ctx.send_event(Part(number=number))
            return None

        @p.step(num_workers=8)
        async def work(self, event: Part) -> Worked:
            return Worked(number=event.number)

        @p.step
        async def join(self, ctx: p.Context, event: Worked) -> p.StopEvent | None:
            collected = ctx.collect_events(event, expected)
            return None if collected is None else p.StopEvent(result=len(collected))

    return ByCollect(timeout=None)


BENCHMARK = growth("growth_collect", f"fan-out {FEW:,} → {MANY:,}, joined by collect_events", _workflow)
