"""The memory of 1,000 workflows that wait for an event, each a run of a workflow object of its own.

`python -m benchmarks.idle PACKAGE` prints the KB (of 1,024 bytes) by which one makes its process
bigger.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark, Goal
from benchmarks.packages import OURS, THEIRS, Package
from benchmarks.process import number_from

WORKFLOWS = 1_000


def _workflow(package: str) -> Any:
    p = Package(package)

    class Answer(p.Event):  # type: ignore[name-defined]
        pass

    class Waits(p.Workflow):  # type: ignore[name-defined]
        @p.step
        async def ask(self, ctx: p.Context, event: p.StartEvent) -> p.StopEvent:
            await ctx.wait_for_event(Answer, timeout=None)
            return p.StopEvent()

    return Waits


def _resident() -> int:
    """Bytes of this process that are in memory; Linux only."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _bytes_each(package: str) -> float:
    kind = _workflow(package)
    # Those that come first make what all share: imports that were put off, caches, the heap's first pages.
    first = [kind(timeout=None).run() for _ in range(50)]
    await asyncio.sleep(0.5)
    before = _resident()
    waiting = [kind(timeout=None).run() for _ in range(WORKFLOWS)]
    await asyncio.sleep(2)
    grown = _resident() - before
    for handler in (*first, *waiting):
        assert not handler.is_done()
    return grown / WORKFLOWS


def _kilobytes(package: str) -> float:
    return number_from("-m", "benchmarks.idle", package)


BENCHMARK = Benchmark(
    name="idle",
    title=f"memory of {WORKFLOWS:,} workflows that wait for an event",
    unit="KB a workflow",
    sides={OURS: partial(_kilobytes, OURS), THEIRS: partial(_kilobytes, THEIRS)},
    goals=[Goal(OURS, 12), Goal(OURS, 1 / 3, beside=THEIRS)],
)

if __name__ == "__main__":
    print(asyncio.run(_bytes_each(sys.argv[1])) / 1024, flush=True)
    os._exit(0)  # without an end for each of the thousand
