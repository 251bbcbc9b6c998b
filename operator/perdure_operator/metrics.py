"""What Prometheus may know of the operator. Labels are bounded: no run's name is one."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from perdure.store.durability import Durability

RUNS = Gauge("perdure_runs", "Runs by phase, as last seen.", ["phase"])
RECONCILE = Histogram(
    "perdure_reconcile_seconds",
    "One look at a run: observe, decide, apply.",
    ["row"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECOVERY = Histogram(
    "perdure_recovery_seconds",
    "From a runner's death, as best known, to its successor's first progress.",
    ["cause"],
    buckets=(1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600),
)
TAKEOVERS = Counter("perdure_takeovers_total", "Successors started, by the cause.", ["cause"])
STORE_UP = Gauge("perdure_store_up", "1 when the store answered the last look of a run.", ["store"])
STORE_DURABLE = Gauge(
    "perdure_store_durable",
    "1 when the store keeps all that it acknowledges, 0 when it may lose some or doesn't say, and why.",
    ["store", "reason"],
)
UNDECIDED = Counter("perdure_undecided_total", "Looks at a run that no rule covered: each is a bug.")
FAILURES = Counter("perdure_reconcile_failures_total", "Looks at a run that ended in an error.")


def tell_durable(store: str, durability: Durability) -> None:
    """One series for each store: that of a reason that was mended goes."""
    for labels in [labels for labels in STORE_DURABLE._metrics if labels[0] == store]:
        if labels[1] != durability.reason:
            STORE_DURABLE.remove(*labels)
    STORE_DURABLE.labels(store, durability.reason).set(durability.status == "True")


def count_runs(bodies: Iterable[Mapping[str, Any]]) -> None:
    """Phases that no run is in any more go to 0, so that their series don't stand still."""
    tally = Tally((body.get("status") or {}).get("phase") or "Pending" for body in bodies)
    known = {labels[0] for labels in RUNS._metrics}
    for phase in known | set(tally):
        RUNS.labels(phase).set(tally.get(phase, 0))
