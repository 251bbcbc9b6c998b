"""The origin's recipe for a long run, as it is written there but for the import: a process of its own."""

import asyncio
import os
import signal
import sys
from typing import Annotated

from redis import Redis

from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent
from perdure.resource import Resource


def get_redis_client(*args, **kwargs):
    return Redis.from_url(os.environ["RECIPE_REDIS_URL"])


class Processed(Event):
    ids: list[str]


class Documents(Workflow):
    def __init__(self, redis: Redis, **kwargs):
        self.redis = redis
        super().__init__(**kwargs)

    @step
    async def process(self, ev: StartEvent, ctx: Context) -> Processed:
        converted_ids = await ctx.store.get("converted_ids", default=[])
        for number in range(6):
            name = f"document-{number}"
            if name in converted_ids:
                continue
            self.redis.rpush("work", name)
            converted_ids.append(name)
            await ctx.store.set("converted_ids", converted_ids)
            self.redis.hset("ctx", mapping=ctx.to_dict())
            if os.environ.get("RECIPE_KILL_AT") == str(number):
                os.kill(os.getpid(), signal.SIGKILL)
        return Processed(ids=converted_ids)

    @step
    async def finish(
        self, ev: Processed, ctx: Context, redis: Annotated[Redis, Resource(get_redis_client)]
    ) -> StopEvent:
        redis.set("finished", len(ev.ids))
        return StopEvent(result=ev.ids)


async def main() -> None:
    redis = get_redis_client()
    workflow = Documents(redis)
    context = Context.from_dict(workflow, redis.hgetall("ctx"))
    print(await workflow.run(ctx=context))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
