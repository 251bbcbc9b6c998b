"""What a durable step costs beside one append to Redis, and beside the same step in memory."""

from __future__ import annotations

from functools import partial

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.server import server
from benchmarks.store_runs import Chain, bare_append, seconds

STEPS = 2_000


def _a_step(durability: str | None) -> float:
    return seconds(Chain(timeout=None), durability, steps=STEPS - 1) / STEPS * 1e6


def _a_call() -> float:
    return bare_append(STEPS) / STEPS * 1e6


BENCHMARK = Benchmark(
    name="store-chain",
    title=f"durable chain of {STEPS:,} steps, appendfsync everysec",
    unit="µs a step",
    sides={
        "bare": _a_call,
        "Strict": partial(_a_step, "Strict"),
        "Relaxed": partial(_a_step, "Relaxed"),
        "memory": partial(_a_step, None),
    },
    goals=[
        Goal("Strict", 1.25, beside="bare"),
        Goal("Strict", 1.1, less="memory", beside="bare"),
        Goal("Relaxed", 0.15, less="memory", beside="bare"),
    ],
    around=server,
)
