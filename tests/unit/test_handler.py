"""What `run()` returns: a result to await, a stream to read, a run to end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.errors import (
    ContextStateError,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
)
from perdure.events import (
    Event,
    StartEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from perdure.store.memory import MemoryStore


class Item(Event):
    number: int = 0


class Shows(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for number in range(3):
            ctx.write_event_to_stream(Item(number=number))
        if ev.get("how") == "fail":
            raise LookupError("no")
        if ev.get("how") is not None:
            await asyncio.sleep(60)
        return StopEvent(result="done")


ENDS = {
    None: (StopEvent, None),
    "fail": (WorkflowFailedEvent, LookupError),
    "time": (WorkflowTimedOutEvent, WorkflowTimeoutError),
    "cancel": (WorkflowCancelledEvent, WorkflowCancelledByUser),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_stream_always_ends_with_a_stop_event_and_raises_nothing(how: str | None) -> None:
    async def go() -> None:
        handler = Shows(timeout=0.02 if how == "time" else None).run(how=how)
        seen = []
        async for event in handler.stream_events():
            seen.append(event)
            if how == "cancel" and len(seen) == 3:
                await handler.cancel_run()
        assert seen[:3] == [Item(number=n) for n in range(3)]
        assert [type(event) for event in seen[3:]] == [ENDS[how][0]]
        assert handler.get_stop_event() is seen[-1]
        assert handler.is_done()
        expected = ENDS[how][1]
        for _ in range(2):  # as often as one likes
            if expected is None:
                assert await handler == "done"
            else:
                with pytest.raises(expected):
                    await handler

    run(go())


def test_a_failure_says_which_step_after_how_many_attempts() -> None:
    async def go() -> Any:
        handler = Shows().run(how="fail")
        with pytest.raises(LookupError) as caught:
            await handler
        return handler.get_stop_event(), caught.value

    event, error = run(go())
    assert (event.step_name, event.exception, event.attempts) == ("only", error, 1)
    assert event.elapsed_seconds >= 0


def test_a_stream_can_be_read_after_the_end_in_parts_and_once() -> None:
    async def go() -> list[Event]:
        handler = Shows().run()
        await handler
        seen = []
        async for event in handler.stream_events():
            seen.append(event)
            break
        seen += [event async for event in handler.stream_events()]
        with pytest.raises(WorkflowRuntimeError, match="already been consumed"):
            async for _ in handler.stream_events():
                pass
        return seen

    assert [type(event) for event in run(go())] == [Item, Item, Item, StopEvent]


def test_cancelling_swallows_what_the_steps_raise_and_a_second_time_does_nothing() -> None:
    class Angry(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            try:
                await asyncio.sleep(60)
            finally:
                raise LookupError

    async def go() -> None:
        handler = Angry().run()
        await asyncio.sleep(0.001)
        await handler.cancel_run()
        await handler.cancel_run(timeout=0)
        assert isinstance(handler.get_stop_event(), WorkflowCancelledEvent)
        with pytest.raises(WorkflowCancelledByUser):
            await handler

    run(go())


def test_awaiting_may_be_given_up_without_the_run() -> None:
    async def go() -> Any:
        handler = Shows().run()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Shows().run(how="wait"), 0.01)
        return await handler

    assert run(go()) == "done"


def test_a_handler_shows_its_workflow_its_run_and_its_end() -> None:
    async def go() -> tuple[str, str]:
        handler = Shows(workflow_name="shop").run(run_id="r1")
        before = str(handler)
        await handler
        return before, str(handler)

    assert run(go()) == (
        "WorkflowHandler(workflow=shop, run_id=r1, result=None)",
        "WorkflowHandler(workflow=shop, run_id=r1, result=done)",
    )


def test_run_ids_are_given_or_made() -> None:
    async def go() -> set[str]:
        workflow = Shows()
        handlers = [workflow.run(), workflow.run(), workflow.run(run_id="mine")]
        await asyncio.gather(*handlers)
        return {handler.run_id for handler in handlers}

    ids = run(go())
    assert len(ids) == 3
    assert "mine" in ids


def test_a_durable_runs_handler_answers_the_same_before_it_is_open_and_when_the_run_had_ended_before() -> (
    None
):
    async def go() -> list[Any]:
        store, seen = MemoryStore(), []
        for _ in range(2):
            handler = Shows(workflow_name="shop").run(run_id="r", store=store)
            assert (handler.is_done(), handler.get_stop_event()) == (False, None)
            with pytest.raises(ContextStateError, match="not open yet"):
                _ = handler.ctx
            result = await handler
            with pytest.warns(DeprecationWarning):
                error = handler.exception()
            seen.append((result, error, str(handler), repr(await handler.stop_event_result())))
        with pytest.raises(ContextStateError, match="already ended"):
            _ = handler.ctx
        return seen

    first, again = run(go())
    assert (
        first
        == again
        == (
            "done",
            None,
            "WorkflowHandler(workflow=shop, run_id=r, result=done)",
            "StopEvent(result='done')",
        )
    )


def test_a_durable_run_that_had_failed_before_raises_its_failure_and_says_so() -> None:
    async def go() -> list[Any]:
        store, seen = MemoryStore(), []
        for _ in range(2):
            handler = Shows().run(run_id="r", store=store, how="fail")
            with pytest.raises(Exception, match="no"):
                await handler
            with pytest.warns(DeprecationWarning):
                seen.append(str(handler.exception()))
        return seen

    assert all("no" in error for error in run(go()))
