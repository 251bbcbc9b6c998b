"""The floor: what a step costs that is nothing but a task, a pydantic event and a queue of the finished.

No engine that runs steps as asyncio tasks and hands over pydantic events can be below it.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from benchmarks.stopwatch import microseconds


class Done(BaseModel):
    number: int


async def _step(number: int, finished: asyncio.Queue[Done]) -> None:
    finished.put_nowait(Done(number=number))


async def _chain(steps: int) -> None:
    finished: asyncio.Queue[Done] = asyncio.Queue()
    for number in range(steps):
        task = asyncio.create_task(_step(number, finished))
        await finished.get()
        await task


class _Loop:
    """The bare loop, to be timed as a workflow is."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    async def run(self) -> None:
        await _chain(self._steps)


def microseconds_a_step(steps: int) -> float:
    return microseconds(_Loop(steps)) / steps
