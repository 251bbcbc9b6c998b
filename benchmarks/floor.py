"""The floor: what a step costs that is nothing but a task, a pydantic event and a queue of the finished.

No engine that runs steps as asyncio tasks and hands over pydantic events can be below it.
"""

from __future__ import annotations

import asyncio
import time

from pydantic import BaseModel


class Done(BaseModel):
    number: int


async def _step(number: int, finished: asyncio.Queue[Done]) -> None:
    finished.put_nowait(Done(number=number))


async def _chain(steps: int) -> float:
    finished: asyncio.Queue[Done] = asyncio.Queue()
    began = time.perf_counter()
    for number in range(steps):
        task = asyncio.create_task(_step(number, finished))
        await finished.get()
        await task
    return (time.perf_counter() - began) * 1e6


def microseconds_a_step(steps: int) -> float:
    return asyncio.run(_chain(steps)) / steps
