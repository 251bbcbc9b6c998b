"""How long a workflow's run takes, in an event loop of its own."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

AT_LEAST = 0.25  # seconds a sample takes


def microseconds(workflow: Any, **fields: Any) -> float:
    """From `run()` to its result, the mean of as many runs as fit into a sample.

    So that the samples of a fast side last as long as those of a slow one, and what else the machine
    does takes the same part of both. The event loop's own start isn't counted.
    """

    async def timed() -> float:
        spent, runs = 0.0, 0
        while spent < AT_LEAST:
            gc.collect()  # what the run before left is not this one's to clear away
            began = time.perf_counter()
            await workflow.run(**fields)
            spent += time.perf_counter() - began
            runs += 1
        return spent / runs * 1e6

    return asyncio.run(timed())
