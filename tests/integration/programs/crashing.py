"""A program that dies by kill -9 in the middle of a durable run."""

import asyncio
import os
import signal
import sys

from perdure import Context, Workflow, step
from perdure.events import StartEvent, StopEvent
from perdure.store.redis import RedisStore


class Counting(Workflow):
    @step
    async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for number in range(2):
            await ctx.store.append("done", number)
        os.kill(os.getpid(), signal.SIGKILL)
        return StopEvent()


async def main() -> None:
    await Counting().run(
        run_id=sys.argv[1], store=RedisStore.from_url(os.environ["PROGRAM_REDIS_URL"]), upto=4
    )


asyncio.run(main())
