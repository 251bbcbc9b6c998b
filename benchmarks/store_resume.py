"""How long a successor takes from nothing to the first step of its own, behind many steps and behind few."""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import partial

from benchmarks import server
from benchmarks.benchmark import Benchmark, Goal
from perdure import Workflow, step
from perdure.durable import DurableRun
from perdure.events import Event, StartEvent, StopEvent
from perdure.store.records import input_record
from perdure.store.redis import RedisStore
from perdure.store.session import RunSession

FEW, MANY = 200, 3_000
SUCCESSORS = 5  # of one run, whose time is added up

LEASE_MS = 60_000


class Next(Event):
    number: int


class Stalls(Workflow):
    """Goes on until its last step, which tells that it began and stays."""

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.stalled = asyncio.Event()

    @step
    async def begin(self, event: StartEvent) -> Next:
        return Next(number=event.steps)

    @step
    async def go_on(self, event: Next) -> Next | StopEvent:
        if event.number:
            return Next(number=event.number - 1)
        self.stalled.set()
        return await asyncio.get_running_loop().create_future()


async def _take(run_id: str, epoch: int) -> None:
    """As another process would: a new connection, acquire, load, fold, start."""
    store, workflow = RedisStore.from_url(server.url()), Stalls()
    session = RunSession(store.run("local", run_id), epoch=epoch, holder=f"successor-{epoch}")
    acquired = await session.acquire(LEASE_MS)
    snapshot, records = await session.load()
    run = DurableRun.start(workflow, session, snapshot, records, acquired=acquired)
    await workflow.stalled.wait()
    await session.settle()
    run.abandon(RuntimeError("the process is gone"))
    await asyncio.wait([run.run.result])
    await store.close()


def milliseconds(steps: int) -> float:
    """Of a successor of a run that has so many steps behind it, give or take where its last snapshot fell."""

    async def timed() -> float:
        took = 0.0
        for number in range(SUCCESSORS):
            store, run_id = RedisStore.from_url(server.url()), f"bench-{secrets.token_hex(8)}"
            run = store.run("local", run_id)
            await run.init(input_record({"steps": steps + number * steps // 10}))
            await _take(run_id, 1)
            await run.advance(2, "Crashed")
            began = time.perf_counter()
            await _take(run_id, 2)
            took += time.perf_counter() - began
            await run.clean()
            await store.close()
        return took / SUCCESSORS * 1e3

    return asyncio.run(timed())


_FEW, _MANY = f"{FEW:,} steps behind", f"{MANY:,} steps behind"
BENCHMARK = Benchmark(
    name="store-resume",
    title="resume a durable run",
    unit="ms",
    sides={_FEW: partial(milliseconds, FEW), _MANY: partial(milliseconds, MANY)},
    goals=[Goal(_MANY, 1.2, beside=_FEW), Goal(_MANY, 50)],
    around=server.server,
)
