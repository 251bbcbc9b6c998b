"""A durable fan-out of 1,000: what a step of it costs, and how many commits it takes."""

from __future__ import annotations

from functools import partial

from benchmarks import server
from benchmarks.benchmark import Benchmark, Goal
from benchmarks.store_runs import FanOut, bare_append, seconds
from perdure.store.scripts import script

EVENTS = 1_000


def _a_step(durability: str | None) -> float:
    return seconds(FanOut(timeout=None), durability, steps=EVENTS) / EVENTS * 1e6


def _a_call() -> float:
    return bare_append(EVENTS) / EVENTS * 1e6


def _commits() -> float:
    """As the server saw them."""
    with server.client() as client, client.monitor() as monitor:
        seconds(FanOut(timeout=None), "Strict", steps=EVENTS)
        client.echo("the end")
        seen = 0
        for command in monitor.listen():
            if script("commit").sha in command["command"]:
                seen += 1
            elif command["command"] == "ECHO the end":
                break
        return float(seen)


BENCHMARK = Benchmark(
    name="store-fanout",
    title=f"durable fan-out of {EVENTS:,}, joined",
    unit="µs a step",
    sides={
        "bare": _a_call,
        "Strict": partial(_a_step, "Strict"),
        "memory": partial(_a_step, None),
    },
    goals=[Goal("Strict", 0.15, less="memory", beside="bare")],
    around=server.server,
)

COMMITS = Benchmark(
    name="store-fanout-commits",
    title=f"durable fan-out of {EVENTS:,}: commits",
    unit="round trips",
    sides={"Strict": _commits},
    goals=[Goal("Strict", 20)],
    around=server.server,
)
