"""A growing fan-out, joined by `collect_events`."""

from __future__ import annotations

from functools import partial

from benchmarks.fanout import fan_out
from benchmarks.growth import FEW, MANY, growth
from benchmarks.packages import OURS

BENCHMARK = growth(
    "growth_collect", f"fan-out {FEW:,} → {MANY:,}, joined by collect_events", partial(fan_out, OURS)
)
