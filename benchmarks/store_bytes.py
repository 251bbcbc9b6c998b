"""What a run that notes each of its documents sends to Redis: does a document cost more behind many others?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks import server
from benchmarks.benchmark import Benchmark, Goal
from benchmarks.store_runs import Documents, seconds

FEW, MANY = 100, 3_000


def _bytes_a_document(documents: int, *, append: bool) -> float:
    """As the server's network saw them, less what a run without documents sends."""
    with server.client() as client:

        def sent(number: int) -> int:
            before = client.info("stats")["total_net_input_bytes"]
            seconds(Documents(timeout=None), "Strict", documents=number, append=append)
            return int(client.info("stats")["total_net_input_bytes"]) - int(before)

        return (sent(documents) - sent(0)) / documents


def _microseconds_a_document(documents: int) -> float:
    # As many documents on both sides, so that neither sample is the shorter and the noisier one.
    runs = MANY // documents
    took = sum(
        seconds(Documents(timeout=None), "Strict", documents=documents, append=True) for _ in range(runs)
    )
    return took / MANY * 1e6


def _growth(name: str, title: str, unit: str, sample: Callable[[int], float], at_most: float) -> Benchmark:
    few, many = f"{FEW:,} documents", f"{MANY:,} documents"
    return Benchmark(
        name=name,
        title=title,
        unit=unit,
        sides={few: partial(sample, FEW), many: partial(sample, MANY)},
        goals=[Goal(many, at_most, beside=few)],
        around=server.server,
    )


SET = _growth(
    "store-bytes-set",
    "ids.append(x), store.set(ids)",
    "bytes a document",
    partial(_bytes_a_document, append=False),
    1.2,
)
APPEND = _growth(
    "store-bytes-append",
    "store.append(ids, x)",
    "bytes a document",
    partial(_bytes_a_document, append=True),
    1.2,
)
APPEND_TIME = _growth(
    "store-time-append", "store.append(ids, x)", "µs a document", _microseconds_a_document, 1.2
)
