"""The work that stores are measured by: chains and fan-outs of durable runs, and one bare append."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import redis.asyncio

from benchmarks import server
from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent
from perdure.store.redis import RedisStore


class Next(Event):
    number: int


class Chain(Workflow):
    """`steps` steps, each of which begins the next."""

    @step
    async def begin(self, event: StartEvent) -> Next:
        return Next(number=event.steps)

    @step
    async def go_on(self, event: Next) -> Next | StopEvent:
        return Next(number=event.number - 1) if event.number > 1 else StopEvent()


class Part(Event):
    number: int


class Worked(Event):
    number: int


class FanOut(Workflow):
    """`steps` steps at once, joined."""

    @step
    async def part(self, event: StartEvent) -> list[Part]:
        return [Part(number=number) for number in range(event.steps)]

    @step(num_workers=1_000)
    async def work(self, event: Part) -> Worked:
        return Worked(number=event.number)

    @step
    async def join(self, events: list[Worked]) -> StopEvent:
        return StopEvent(result=len(events))


class Documents(Workflow):
    """Notes each of `documents` in a list of its state: as the framework's own example does, or by append."""

    @step
    async def convert(self, ctx: Context, event: StartEvent) -> StopEvent:
        converted_ids = await ctx.store.get("converted_ids", default=[])
        for number in range(event.documents):
            name = f"document-{number:06d}"
            if event.append:
                await ctx.store.append("converted_ids", name)
            else:
                converted_ids.append(name)
                await ctx.store.set("converted_ids", converted_ids)
        return StopEvent()


def seconds(workflow: Workflow[Any], durability: str | None, **fields: Any) -> float:
    """From `run()` to its result, with a new connection and a new run_id; None is a run without a store."""

    async def timed() -> float:
        began = time.perf_counter()
        if durability is None:
            await workflow.run(**fields)
            return time.perf_counter() - began
        store = RedisStore.from_url(server.url())
        run_id = f"bench-{secrets.token_hex(8)}"
        try:
            await workflow.run(run_id=run_id, store=store, durability=durability, **fields)
            took = time.perf_counter() - began
            await store.run("local", run_id).clean()
            return took
        finally:
            await store.close()

    return asyncio.run(timed())


def bare_append(calls: int) -> float:
    """Seconds for so many calls of a script that appends 500 bytes to a list, by the client library's best."""

    async def timed() -> float:
        client = redis.asyncio.Redis.from_url(server.url())
        append = client.register_script("redis.call('RPUSH', KEYS[1], ARGV[1]) return 1")
        record = b"x" * 500
        await append(keys=["bare"], args=[record])
        began = time.perf_counter()
        for _ in range(calls):
            await append(keys=["bare"], args=[record])
        took = time.perf_counter() - began
        await client.delete("bare")
        await client.aclose()
        return took

    return asyncio.run(timed())
