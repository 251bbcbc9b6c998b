"""How long a workflow's run takes, in an event loop of its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any


def microseconds(workflow: Any, **fields: Any) -> float:
    """From `run()` to its result; the loop's own start isn't counted."""

    async def timed() -> float:
        began = time.perf_counter()
        await workflow.run(**fields)
        return (time.perf_counter() - began) * 1e6

    return asyncio.run(timed())
