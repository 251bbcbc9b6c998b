"""A durable run inside a program: resumed, held, finished, and a host that outlives its run."""

import asyncio
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import Context, Workflow, step
from perdure.errors import LeaseLostError, RunHeldError, WorkflowRuntimeError
from perdure.events import StartEvent, StopEvent
from perdure.store.redis import RedisStore

CRASHING = Path(__file__).parent / "programs" / "crashing.py"


class Counting(Workflow):
    @step
    async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for number in range(ev.upto):
            if number in await ctx.store.get("done", default=[]):
                continue
            await ctx.store.append("done", number)
            if number == getattr(self, "stop_at", None):
                self.reached.set()
                await asyncio.sleep(60)
        return StopEvent(result=await ctx.store.get("done"))


def test_a_finished_run_gives_its_recorded_result_and_runs_nothing(redis_url):
    async def go():
        store, run_id = RedisStore.from_url(redis_url), secrets.token_hex(4)
        first = await Counting().run(run_id=run_id, store=store, upto=3)

        class Untouched(Counting):
            @step
            async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
                raise AssertionError("it ran again")

        again = await Untouched().run(run_id=run_id, store=store, upto=3)
        await store.close()
        return first, again

    assert asyncio.run(go()) == ([0, 1, 2], [0, 1, 2])


def test_a_run_that_a_live_holder_has_is_refused_and_its_fenced_holder_raises(redis_url):
    async def go():
        store, run_id = RedisStore.from_url(redis_url), secrets.token_hex(4)
        workflow = Counting()
        workflow.stop_at, workflow.reached = 1, asyncio.Event()
        holder = workflow.run(run_id=run_id, store=store, upto=3)
        await workflow.reached.wait()
        with pytest.raises(RunHeldError, match=run_id):
            await Counting().run(run_id=run_id, store=store, upto=3)
        await store.run("local", run_id).advance(2, "LeaseExpired")
        resumed = await Counting().run(run_id=run_id, store=store, upto=3)
        with pytest.raises(LeaseLostError):
            await holder
        await store.close()
        return resumed

    assert asyncio.run(go()) == [0, 1, 2]


def test_a_run_whose_process_of_this_host_is_gone_is_resumed_at_once(redis_url):
    run_id = secrets.token_hex(4)
    died = subprocess.run(
        [sys.executable, str(CRASHING), run_id],
        env={**os.environ, "PROGRAM_REDIS_URL": redis_url},
        check=False,
        timeout=60,
    )
    assert died.returncode == -9

    async def go():
        store = RedisStore.from_url(redis_url)
        result = await asyncio.wait_for(Counting().run(run_id=run_id, store=store, upto=4), 5)
        await store.close()
        return result

    assert asyncio.run(go()) == [0, 1, 2, 3]


def test_a_failed_run_says_how_it_failed_when_it_is_asked_again(redis_url):
    class Failing(Workflow):
        @step
        async def fail(self, ev: StartEvent) -> StopEvent:
            raise ValueError("not this way")

    async def go():
        store, run_id = RedisStore.from_url(redis_url), secrets.token_hex(4)
        with pytest.raises(ValueError, match="not this way"):
            await Failing().run(run_id=run_id, store=store)
        with pytest.raises(WorkflowRuntimeError, match=r"StepFailed.*ValueError.*not this way"):
            await Failing().run(run_id=run_id, store=store)
        await store.close()

    asyncio.run(go())


@pytest.mark.parametrize("run_id", ["", "a b", "x" * 129])
def test_a_run_id_that_can_not_be_a_key_is_refused(redis_url, run_id):
    async def go():
        store = RedisStore.from_url(redis_url)
        with pytest.raises(ValueError, match="run_id"):
            await Counting().run(run_id=run_id, store=store, upto=1)
        await store.close()

    asyncio.run(go())


def test_of_two_that_wait_for_the_same_run_both_get_its_result(redis_url):
    async def go():
        store, run_id = RedisStore.from_url(redis_url), secrets.token_hex(4)
        both = [Counting().run(run_id=run_id, store=store, wait=True, upto=3) for _ in range(2)]
        results = await asyncio.wait_for(asyncio.gather(*both), 20)
        await store.close()
        return results

    assert asyncio.run(go()) == [[0, 1, 2]] * 2
