"""The origin's recipes run as they are written there, with no change but the import."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from perdure import Context, Workflow, step
from perdure.errors import ContextSerdeError
from perdure.events import Event, StartEvent, StopEvent

RECIPE = Path(__file__).parent / "recipes" / "checkpointing.py"


class Middle(Event):
    text: str


class Database:
    def lookup(self) -> str:
        return "from the database"


class KeepsAClient(Workflow):
    def __init__(self, db, *args, **kwargs):
        self.db = db
        super().__init__(*args, **kwargs)

    @step
    async def look(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=self.db.lookup())


class NeverCallsSuper(Workflow):
    def __init__(self, db):
        self.db = db

    @step
    async def look(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=self.db.lookup())


@pytest.mark.parametrize("kind", [KeepsAClient, NeverCallsSuper])
def test_an_instance_keeps_what_its_own_init_gave_it(kind):
    async def go():
        return await kind(Database()).run()

    assert asyncio.run(go()) == "from the database"


class Interrupted(Workflow):
    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Middle:
        await ctx.store.set("name", ev.name)
        return Middle(text="on the way")

    @step
    async def second(self, ctx: Context, ev: Middle) -> StopEvent:
        if not getattr(self, "lets_go", False):
            await asyncio.sleep(60)
        return StopEvent(result=f"{ev.text} {await ctx.store.get('name')}")


def test_a_run_goes_on_from_its_handlers_context():
    async def go():
        workflow = Interrupted()
        handler = workflow.run(name="x")
        context = handler.ctx
        while "second" not in await context.running_steps():
            await asyncio.sleep(0.001)
        data = context.to_dict()
        await handler.cancel_run()

        again = Interrupted()
        again.lets_go = True
        restored = Context.from_dict(again, data)
        assert restored.is_running
        return await again.run(ctx=restored)

    assert asyncio.run(go()) == "on the way x"


def test_a_finished_runs_context_gives_the_next_run_its_state():
    class Counting(Workflow):
        @step
        async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
            number = await ctx.store.get("number", default=0) + 1
            await ctx.store.set("number", number)
            return StopEvent(result=number)

    async def go():
        workflow = Counting()
        handler = workflow.run()
        first = await handler
        context = Context.from_dict(workflow, handler.ctx.to_dict())
        return first, await workflow.run(ctx=context)

    assert asyncio.run(go()) == (1, 2)


def test_the_fields_of_to_dict_are_always_the_same_and_all_text():
    async def go():
        workflow = Interrupted()
        before = Context(workflow).to_dict()
        handler = workflow.run(name="x")
        await asyncio.sleep(0.01)
        during = handler.ctx.to_dict()
        await handler.cancel_run()
        return before, during

    before, during = asyncio.run(go())
    assert list(before) == list(during)
    assert all(type(value) is str for value in (*before.values(), *during.values()))


@pytest.mark.parametrize(
    "data", [{"version": "999"}, {"version": 2, "workers": {}}, {"version": "1", "engine": "!"}, {"x": "y"}]
)
def test_what_is_no_context_is_refused_with_a_message(data):
    with pytest.raises(ContextSerdeError):
        Context.from_dict(Interrupted(), data)


@pytest.mark.parametrize("kill_at", ["0", "3", "5"])
def test_a_context_saved_inside_a_step_survives_kill_9_and_the_next_run_skips_what_was_done(
    redis_url, kill_at
):
    client = redis.Redis.from_url(redis_url)
    client.delete("ctx", "work", "finished")
    environment = {**os.environ, "RECIPE_REDIS_URL": redis_url}
    killed = subprocess.run(
        [sys.executable, str(RECIPE)],
        env={**environment, "RECIPE_KILL_AT": kill_at},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = subprocess.run(
        [sys.executable, str(RECIPE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    names = [f"document-{number}" for number in range(6)]
    assert again.stdout.strip() == str(names)
    assert [name.decode() for name in client.lrange("work", 0, -1)] == names
    assert client.get("finished") == b"6"


def test_a_context_read_as_text_is_the_same_as_one_read_as_bytes(redis_url):
    async def go():
        workflow = Interrupted()
        handler = workflow.run(name="x")
        await asyncio.sleep(0.01)
        client = redis.Redis.from_url(redis_url)
        client.hset("ctx-text", mapping=handler.ctx.to_dict())
        await handler.cancel_run()
        results = []
        for decoded in (False, True):
            data = redis.Redis.from_url(redis_url, decode_responses=decoded).hgetall("ctx-text")
            again = Interrupted()
            again.lets_go = True
            results.append(await again.run(ctx=Context.from_dict(again, data)))
        return results

    assert asyncio.run(go()) == ["on the way x"] * 2
