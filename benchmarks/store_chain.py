"""What a durable step costs beside one append to Redis, and beside the same step in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.server import client, server
from benchmarks.store_runs import Chain, bare_append, seconds

STEPS = 2_000


def _a_step(durability: str | None) -> float:
    return seconds(Chain(timeout=None), durability, steps=STEPS - 1) / STEPS * 1e6


def _a_call() -> float:
    return bare_append(STEPS) / STEPS * 1e6


def _cpu(sample: Callable[[], float]) -> float:
    """The processor's time for a step, the program's and Redis's: on a busy machine it tells more than the clock."""
    with client() as asking:

        def used() -> float:
            told = asking.info("cpu")
            return time.process_time() + float(told["used_cpu_sys"]) + float(told["used_cpu_user"])

        before = used()
        sample()
        return (used() - before) / STEPS * 1e6


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

CPU = Benchmark(
    name="store-chain-cpu",
    title="the same, program and Redis together",
    unit="µs of processor a step",
    sides={
        "bare": partial(_cpu, _a_call),
        "Strict": partial(_cpu, partial(_a_step, "Strict")),
        "Relaxed": partial(_cpu, partial(_a_step, "Relaxed")),
        "memory": partial(_cpu, partial(_a_step, None)),
    },
    around=server,
)
