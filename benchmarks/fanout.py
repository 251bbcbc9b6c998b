"""A fan-out: 300 events from one step, worked on by 8 at a time, collected."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.packages import OURS, THEIRS, Package
from benchmarks.stopwatch import microseconds

EVENTS = 300
WORKERS = 8


@cache
def fan_out(package: str, events: int) -> Any:
    """Joined by `collect_events` with an `expected` list that stays the same."""
    p = Package(package)

    class Part(p.Event):  # type: ignore[name-defined]
        number: int

    class Worked(p.Event):  # type: ignore[name-defined]
        number: int

    expected = [Worked] * events

    class FanOut(p.Workflow):  # type: ignore[name-defined]
        @p.step
        async def part(self, ctx: p.Context, event: p.StartEvent) -> Part | None:
            for number in range(events):
                ctx.send_event(Part(number=number))
            return None

        @p.step(num_workers=WORKERS)
        async def work(self, event: Part) -> Worked:
            return Worked(number=event.number)

        @p.step
        async def join(self, ctx: p.Context, event: Worked) -> p.StopEvent | None:
            collected = ctx.collect_events(event, expected)
            return None if collected is None else p.StopEvent(result=len(collected))

    return FanOut(timeout=None)


def _an_event(package: str) -> float:
    return microseconds(fan_out(package, EVENTS)) / EVENTS


BENCHMARK = Benchmark(
    name="fanout",
    title=f"fan-out of {EVENTS}, {WORKERS} workers, collected",
    unit="µs an event",
    sides={OURS: partial(_an_event, OURS), THEIRS: partial(_an_event, THEIRS)},
    goals=[Goal(OURS, 1 / 50, beside=THEIRS)],
)
