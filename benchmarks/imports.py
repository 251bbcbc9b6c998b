"""How long the import takes, each in a process of its own.

`import pydantic` alone loads next to nothing of pydantic, which fetches its names when they are asked
for; so what a program really imports is measured too: the names that every workflow needs, beside the
one that every model needs.
"""

from __future__ import annotations

from functools import partial

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.packages import OURS, THEIRS
from benchmarks.process import number_from

_TIMED = "import time; began = time.perf_counter(); {0}; print((time.perf_counter() - began) * 1e3)"


def _milliseconds(statement: str) -> float:
    return number_from("-c", _TIMED.format(statement))


BENCHMARK = Benchmark(
    name="imports",
    title="import",
    unit="ms",
    sides={
        statement: partial(_milliseconds, statement)
        for statement in (
            f"import {OURS}",
            "import pydantic",
            f"from {OURS} import Workflow, step",
            "from pydantic import BaseModel",
            f"from {THEIRS} import Workflow, step",
        )
    },
    goals=[Goal(f"import {OURS}", 1.3, beside="import pydantic")],
)
