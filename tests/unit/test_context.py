"""A run seen by its three faces: before it, from outside, and in a step."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.context import PickleSerializer
from perdure.context.state_store import DictState
from perdure.errors import ContextSerdeError, ContextStateError, WorkflowRuntimeError
from perdure.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_none


async def result(workflow: Workflow[Any], **fields: Any) -> Any:
    return await workflow.run(**fields)


class Item(Event):
    number: int = 0


class Other(Event):
    number: int = 0


class Question(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    text: str = ""


class Once(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.store.set("seen", True)
        return StopEvent(result="done")


class Waits(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Question())
        return StopEvent(result=answer.text)


# --- faces --------------------------------------------------------------------------------------------

IN_STEP: dict[str, Callable[[Context[Any]], Any]] = {
    "wait_for_event": lambda ctx: ctx.wait_for_event(Answer),
    "collect_events": lambda ctx: ctx.collect_events(Item(), [Item]),
    "write_event_to_stream": lambda ctx: ctx.write_event_to_stream(Item()),
    "retry_info": lambda ctx: ctx.retry_info(),
    "checkpoint": lambda ctx: ctx.checkpoint(),
    "sleep": lambda ctx: ctx.sleep(0),
    "attempt": lambda ctx: ctx.attempt,
    "now": lambda ctx: ctx.now(),
    "idempotency_key": lambda ctx: ctx.idempotency_key,
}
OUTSIDE: dict[str, Callable[[Context[Any]], Any]] = {
    "stream_events": lambda ctx: ctx.stream_events(),
    "running_steps": lambda ctx: ctx.running_steps(),
    "get_result": lambda ctx: ctx.get_result(),
    "streaming_queue": lambda ctx: ctx.streaming_queue,
}


async def call(member: Callable[[Context[Any]], Any], ctx: Context[Any]) -> Any:
    found = member(ctx)
    if inspect.isawaitable(found):
        return await found
    return [event async for event in found] if inspect.isasyncgen(found) else found


@pytest.mark.parametrize("member", [*IN_STEP.values(), *OUTSIDE.values()], ids=[*IN_STEP, *OUTSIDE])
def test_before_its_run_a_context_has_only_its_state(member: Callable[[Context[Any]], Any]) -> None:
    with pytest.raises(ContextStateError):
        run(call(member, Context(Once())))
    with pytest.raises(ContextStateError):
        Context(Once()).send_event(Item())


@pytest.mark.parametrize("name", IN_STEP)
def test_what_only_a_step_may_do_is_refused_outside(name: str) -> None:
    async def go() -> None:
        handler = Once().run()
        await handler
        with pytest.raises(ContextStateError, match="in a running step only"):
            await call(IN_STEP[name], handler.ctx)

    run(go())


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_only_the_starter_may_do_is_refused_in_a_step(name: str) -> None:
    class Asks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(ContextStateError, match=r"use handler\.ctx"):
                await call(OUTSIDE[name], ctx)
            return StopEvent()

    run(result(Asks()))


def test_the_context_that_was_given_becomes_the_outside_of_the_run() -> None:
    async def go() -> tuple[bool, list[str], str]:
        workflow = Waits()
        ctx: Context[Any] = Context(workflow)
        handler = workflow.run(ctx=ctx)
        async for event in ctx.stream_events():
            if isinstance(event, Question):
                break
        steps = await ctx.running_steps()
        ctx.send_event(Answer(text="yes"))
        return handler.ctx is ctx, steps, await handler

    assert run(go()) == (True, ["only"], "yes")


def test_state_set_before_a_run_is_there_in_it_and_its_own_after_it() -> None:
    class Reads(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("after", 2)
            return StopEvent(result=await ctx.store.get("before"))

    async def go() -> tuple[Any, Any]:
        workflow = Reads()
        ctx: Context[Any] = Context(workflow)
        await ctx.store.set("before", 1)
        handler = workflow.run(ctx=ctx)
        return await handler, await handler.ctx.store.get("after")

    assert run(go()) == (1, 2)


def test_get_step_context_works_anywhere_below_a_step_and_nowhere_else() -> None:
    async def below() -> Context[Any]:
        return Context.get_step_context()

    class Deep(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            (found,) = await asyncio.gather(below())
            return StopEvent(result=found is ctx)

    assert run(result(Deep())) is True
    with pytest.raises(WorkflowRuntimeError, match="outside of a step"):
        Context.get_step_context()


def test_a_contexts_stream_is_that_of_its_handler_and_a_step_that_waits_is_running() -> None:
    class Asks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Item(number=1))
            await ctx.wait_for_event(HumanResponseEvent)
            return StopEvent()

    async def go() -> tuple[list[str], list[Event]]:
        handler = Asks().run()
        seen: list[Event] = []
        waiting: list[str] = []
        async for event in handler.ctx.stream_events():
            seen.append(event)
            if isinstance(event, Item):
                waiting = await handler.ctx.running_steps()
                handler.ctx.send_event(HumanResponseEvent())
        await handler
        return waiting, seen

    waiting, seen = run(go())
    assert waiting == ["only"]
    assert seen == [Item(number=1), StopEvent()]


def test_deprecated_members_still_answer_and_warn() -> None:
    class Asks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.warns(DeprecationWarning, match="is_running"):
                running = ctx.is_running
            ctx.write_event_to_stream(Item(number=1))
            return StopEvent(result=running)

    async def go() -> tuple[Any, list[Event]]:
        handler = Asks().run()
        with pytest.warns(DeprecationWarning, match="streaming_queue"):
            queue = handler.ctx.streaming_queue
        with (
            pytest.warns(DeprecationWarning, match="get_result"),
            pytest.raises(WorkflowRuntimeError, match="not ended"),
        ):
            handler.ctx.get_result()
        await handler
        with pytest.warns(DeprecationWarning, match="get_result"):
            found = handler.ctx.get_result()
        return found, [await queue.get(), await queue.get()]

    found, events = run(go())
    assert found is True
    assert events == [Item(number=1), StopEvent(result=True)]


# --- sending ------------------------------------------------------------------------------------------


def test_a_send_to_a_step_that_is_not_there_or_does_not_take_it_is_refused_at_once() -> None:
    class Sends(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item:
            with pytest.raises(WorkflowRuntimeError, match="Step nowhere does not exist"):
                ctx.send_event(Item(), step="nowhere")
            with pytest.raises(WorkflowRuntimeError, match="Step end does not accept event of type"):
                ctx.send_event(Other(), step="end")
            return Item(number=1)

        @step
        async def end(self, ev: Item) -> StopEvent:
            return StopEvent(result=ev.number)

    async def go() -> None:
        handler = Waits().run()
        with pytest.raises(WorkflowRuntimeError, match="Step nowhere does not exist"):
            await handler.send_event(Answer(), step="nowhere")
        with pytest.raises(WorkflowRuntimeError, match="does not accept"):
            handler.ctx.send_event(Item(), step="only")
        await handler.cancel_run()

    assert run(result(Sends())) == 1
    run(go())


def test_a_send_to_a_step_goes_to_no_other() -> None:
    class Sends(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            ctx.send_event(Item(), step="second")
            return None

        @step
        async def first(self, ev: Item) -> StopEvent:
            return StopEvent(result="first")

        @step
        async def second(self, ev: Item) -> StopEvent:
            await asyncio.sleep(0.002)
            return StopEvent(result="second")

    assert run(result(Sends())) == "second"


def test_publishing_nothing_is_ignored() -> None:
    class Publishes(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(None)
            return StopEvent()

    async def go() -> list[Event]:
        return [event async for event in Publishes().run().stream_events()]

    assert run(go()) == [StopEvent()]


# --- collecting ---------------------------------------------------------------------------------------


class Collects(Workflow):
    """Sends what `run(sent=...)` says and gives each set of `expected` that it collects."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Item | Other | None:
        await ctx.store.set("expected", ev.expected)
        for event in ev.sent:
            ctx.send_event(event)
        ctx.send_event(Item(number=99), step="end")
        return None

    @step(num_workers=1)
    async def gather(self, ctx: Context, ev: Item | Other) -> None:
        found = ctx.collect_events(ev, await ctx.store.get("expected"))
        if found is not None:
            await ctx.store.append("sets", [event.number for event in found])

    @step(num_workers=1)
    async def end(self, ctx: Context, ev: Item) -> StopEvent | None:
        if ev.number != 99:
            return None
        await asyncio.sleep(0.01)
        return StopEvent(result=await ctx.store.get("sets", default=[]))


@pytest.mark.parametrize(
    ("expected", "sent", "sets"),
    [
        ([Other, Item], [Item(number=1), Other(number=2)], [[2, 1]]),
        ([Item, Item], [Item(number=1), Item(number=2), Item(number=3)], [[1, 2]]),
        ([Item, Other], [Item(number=1), Item(number=2), Other(number=3), Other(number=4)], [[1, 3]]),
        ([Item], [Item(number=1), Item(number=2)], [[1], [2]]),
        ([Item, Item], [Other(number=1), Item(number=2), Item(number=3)], [[2, 3]]),
        ([], [Item(number=1)], [[]]),
    ],
)
def test_a_set_is_in_the_order_asked_for_and_what_is_not_expected_is_dropped(
    expected: list[type[Event]], sent: list[Event], sets: list[list[int]]
) -> None:
    assert run(result(Collects(), expected=expected, sent=sent)) == sets


def test_buffers_are_told_apart_by_their_id_and_by_step() -> None:
    class Buffers(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            for number in range(4):
                ctx.send_event(Item(number=number))
            return None

        @step(num_workers=1)
        async def sort(self, ctx: Context, ev: Item) -> StopEvent | None:
            odd = ctx.collect_events(ev, [Item, Item], buffer_id="odd") if ev.number % 2 else None
            every = ctx.collect_events(ev, [Item] * 4, buffer_id="every")
            if odd:
                await ctx.store.set("odd", [e.number for e in odd])
            if every is None:
                return None
            return StopEvent(result=(await ctx.store.get("odd"), [e.number for e in every]))

        @step(num_workers=1)
        async def other(self, ctx: Context, ev: Item) -> None:
            assert ctx.collect_events(ev, [Item] * 9, buffer_id="every") is None

    assert run(result(Buffers())) == ([1, 3], [0, 1, 2, 3])


def test_what_a_failed_step_collected_is_collected_again_by_its_retry() -> None:
    class Fails(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            for number in range(2):
                ctx.send_event(Item(number=number))
            return None

        @step(num_workers=1, retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def pair(self, ctx: Context, ev: Item) -> StopEvent | None:
            found = ctx.collect_events(ev, [Item, Item])
            if ctx.retry_info().retry_number == 0 and ev.number == 1:
                raise LookupError
            return StopEvent(result=[e.number for e in found]) if found else None

    assert run(result(Fails())) == [0, 1]


# --- waiting ------------------------------------------------------------------------------------------


def test_requirements_are_of_fields_and_dynamic_data_and_the_type_is_exact() -> None:
    class Special(Answer):
        pass

    class Picks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            found = await ctx.wait_for_event(
                Answer, waiter_event=Question(), requirements={"text": "yes", "user": "ada"}
            )
            return StopEvent(result=found["number"])

    async def go() -> Any:
        handler = Picks().run()
        async for _ in handler.stream_events():
            break
        for number, answer in enumerate(
            [Answer(text="no", user="ada"), Answer(text="yes"), Special(text="yes", user="ada")]
        ):
            answer["number"] = number
            await handler.send_event(answer)
        await handler.send_event(Answer(text="yes", user="ada", number=3))
        return await handler

    assert run(go()) == 3


def test_requirements_that_could_not_be_kept_are_refused() -> None:
    class Picks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, requirements={"text": object()})
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match="requirements must be plain values"):
        run(result(Picks()))


def test_a_question_is_published_once_however_often_its_waiter_is_asked() -> None:
    class Asks(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(), waiter_id="q")
            if ctx.attempt == 0:
                raise LookupError
            return StopEvent(result=answer.text)

    async def go() -> tuple[Any, int]:
        handler, asked = Asks().run(), 0
        async for event in handler.stream_events():
            if isinstance(event, Question):
                asked += 1
                await handler.send_event(Answer(text="yes"))
        return await handler, asked

    assert run(go()) == ("yes", 1)


def test_one_event_answers_all_waiters_that_match() -> None:
    class Many(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(number=n) for n in range(3)]

        @step
        async def work(self, ctx: Context, ev: Item) -> Other:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question())
            return Other(number=ev.number + len(answer.text))

        @step
        async def end(self, ev: list[Other]) -> StopEvent:
            return StopEvent(result=sorted(e.number for e in ev))

    async def go() -> Any:
        handler, asked = Many().run(), 0
        async for event in handler.stream_events():
            asked += isinstance(event, Question)
            if asked == 3:
                await handler.send_event(Answer(text="12"))
                asked = 0
        return await handler

    assert run(go()) == [2, 3, 4]


def test_a_step_that_waits_is_not_run_again_while_it_lives() -> None:
    class Counts(Workflow):
        ran = 0

        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.ran += 1
            try:
                answer = await ctx.wait_for_event(Answer, waiter_event=Question())
            except Exception:  # in the origin this would catch what ends the invocation
                return StopEvent(result="broken")
            return StopEvent(result=(answer.text, self.ran))

    async def go() -> Any:
        handler = Counts().run()
        async for event in handler.stream_events():
            if isinstance(event, Question):
                await handler.send_event(Answer(text="yes"))
        return await handler

    assert run(go()) == ("yes", 1)


# --- serialization ------------------------------------------------------------------------------------


def test_to_dict_works_before_during_in_and_after_a_run() -> None:
    class Saves(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("x", 1)
            return StopEvent(result=ctx.to_dict())

    async def go() -> list[dict[str, str]]:
        workflow = Saves()
        handler = workflow.run()
        during = handler.ctx.to_dict()
        inside = await handler
        return [Context(workflow).to_dict(), during, inside, handler.ctx.to_dict()]

    saved = run(go())
    assert [one["is_running"] for one in saved] == ["false", "true", "true", "false"]
    assert len({tuple(one) for one in saved}) == 1, (
        "the fields are always the same: a hash keeps nothing stale"
    )
    assert all(isinstance(value, str) for one in saved for value in one.values())
    assert json.loads(saved[2]["state"])["state_data"] == {"_data": {"x": "1"}}


def test_a_saved_step_sees_its_state_and_runs_again() -> None:
    class Twice(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with ctx.store.edit_state() as state:
                state["ran"] = state.get("ran", 0) + 1
            if state["ran"] == 1:
                self.saved = ctx.to_dict()
                await asyncio.sleep(60)
            return StopEvent(result=(state["ran"], ev.word))

    async def go() -> Any:
        workflow = Twice()
        handler = workflow.run(word="hello")
        while not hasattr(workflow, "saved"):
            await asyncio.sleep(0)
        await handler.cancel_run()
        as_bytes = {key.encode(): value.encode() for key, value in workflow.saved.items()}
        return await workflow.run(ctx=Context.from_dict(workflow, as_bytes))

    assert run(go()) == (2, "hello")


def test_a_waiter_is_kept_with_its_requirements_and_its_question_is_not_asked_again() -> None:
    class Picks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            found = await ctx.wait_for_event(
                Answer, waiter_event=Question(), requirements={"text": "yes"}, waiter_id="w"
            )
            return StopEvent(result=found.text)

    async def go() -> tuple[Any, list[str]]:
        workflow = Picks()
        handler = workflow.run()
        async for _ in handler.stream_events():
            break
        saved = handler.ctx.to_dict()
        await handler.cancel_run()
        handler = workflow.run(ctx=Context.from_dict(workflow, saved))
        await handler.send_event(Answer(text="no"))
        await handler.send_event(Answer(text="yes"))
        shown = [type(event).__name__ async for event in handler.stream_events()]
        return await handler, shown

    assert run(go()) == ("yes", ["StopEvent"])


def test_what_was_collected_is_kept() -> None:
    class Pairs(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> None: ...

        @step
        async def pair(self, ctx: Context, ev: Answer) -> StopEvent | None:
            found = ctx.collect_events(ev, [Answer, Answer])
            await ctx.store.append("n", 1)
            return StopEvent(result=[e.text for e in found]) if found else None

    async def go() -> Any:
        workflow = Pairs()
        handler = workflow.run()
        await handler.send_event(Answer(text="a"))
        while await handler.ctx.store.get("n", default=None) is None or await handler.ctx.running_steps():
            await asyncio.sleep(0)
        saved = handler.ctx.to_dict()
        await handler.cancel_run()
        handler = workflow.run(ctx=Context.from_dict(workflow, saved))
        await handler.send_event(Answer(text="b"))
        return await handler

    assert run(go()) == ["a", "b"]


@pytest.mark.parametrize("how", ["cancelled", "stopped", "failed", "timed out"])
def test_only_a_cancelled_run_can_be_taken_up_again(how: str) -> None:
    class Ends(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            if ev.get("how") == "failed":
                raise LookupError
            if ev.get("how") != "stopped":
                await asyncio.sleep(60)
            return StopEvent()

    async def go() -> str:
        handler = Ends(timeout=0.01 if how == "timed out" else None).run(how=how)
        await asyncio.sleep(0)
        if how == "cancelled":
            await handler.cancel_run()
        await asyncio.gather(handler, return_exceptions=True)
        assert handler.ctx.is_running == (how == "cancelled")
        return handler.ctx.to_dict()["is_running"]

    assert run(go()) == ("true" if how == "cancelled" else "false")


def test_state_may_be_left_out_and_the_serializer_chosen() -> None:
    async def go() -> tuple[str, Any]:
        workflow = Once()
        ctx: Context[Any] = Context(workflow)
        await ctx.store.set("set", {1, 2})
        saved = ctx.to_dict(PickleSerializer())
        again: Context[Any] = Context.from_dict(workflow, saved, PickleSerializer())
        with pytest.raises(ValueError, match="Failed to serialize"):
            ctx.to_dict()
        return ctx.to_dict(include_state=False)["state"], await again.store.get("set")

    assert run(go()) == ("", {1, 2})


def test_an_empty_dict_is_a_fresh_context() -> None:
    workflow = Once()
    assert not Context.from_dict(workflow, {}).is_running
    assert not Context.from_dict(workflow, Context(workflow).to_dict()).is_running


ORIGINS = {"version": 2, "state": {}, "is_running": False, "workers": {}, "stream_seq": 0}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ORIGINS, "other frameworks can't be read"),
        ({"globals": {}, "queues": {}, "is_running": False}, "other frameworks can't be read"),
        ({"version": "99"}, "version '99'"),
        ({"version": "1", "state": "{"}, "can't be read"),
        ({"version": "1", "engine": "~"}, "damaged"),
        ({"version": "1", "engine": "AAAA"}, "can't be read"),
        (None, "not a NoneType"),
        ('{"version": "1"}', "not a str"),
    ],
)
def test_what_is_no_context_of_perdure_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ContextSerdeError, match=message):
        Context.from_dict(Once(), data)


# --- typed state --------------------------------------------------------------------------------------


class Base(BaseModel):
    name: str = "base"


class Derived(Base):
    count: int = 0


def test_the_most_derived_model_of_all_steps_is_the_state() -> None:
    class Typed(Workflow):
        @step
        async def begin(self, ctx: Context[Base], ev: StartEvent) -> Item:
            await ctx.store.set("name", "set")
            return Item()

        @step
        async def end(self, ctx: Context[Derived], ev: Item) -> StopEvent:
            await ctx.store.set_state(Base(name="merged"))  # type: ignore[arg-type]
            return StopEvent(result=await ctx.store.get_state())

    assert run(result(Typed())) == Derived(name="merged", count=0)


def test_models_of_two_families_are_refused() -> None:
    class Stranger(BaseModel):
        pass

    class Typed(Workflow):
        @step
        async def begin(self, ctx: Context[Derived], ev: StartEvent) -> Item:
            return Item()

        @step
        async def end(self, ctx: Context[Stranger], ev: Item) -> StopEvent:
            return StopEvent()

    with pytest.raises(ValueError, match="one must inherit from the other"):
        run(result(Typed()))


def test_typed_state_comes_back_as_its_model() -> None:
    class Typed(Workflow):
        @step
        async def only(self, ctx: Context[Derived], ev: StartEvent) -> StopEvent:
            await ctx.store.set("count", 3)
            return StopEvent()

    async def go() -> Any:
        workflow = Typed()
        handler = workflow.run()
        await handler
        again: Context[Derived] = Context.from_dict(workflow, handler.ctx.to_dict())
        return await again.store.get_state()

    assert run(go()) == Derived(count=3)


def test_an_untyped_context_has_a_dict_state() -> None:
    assert Context(Once()).store.state_type is DictState


def test_a_waiters_time_goes_on_over_a_restart() -> None:
    class Waits(Workflow):
        ran = 0

        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.ran += 1
            await ctx.wait_for_event(Answer, waiter_event=Question(), timeout=60)
            return StopEvent()

    def deadline(handler: Any) -> float | None:
        (work,) = handler._run.loop.state.works.values()
        (wait,) = work.waits.values()
        found: float | None = wait.deadline
        return found

    async def go() -> bool:
        workflow = Waits()
        handler = workflow.run()
        async for _ in handler.stream_events():
            break
        saved, before = handler.ctx.to_dict(), deadline(handler)
        await handler.cancel_run()
        handler = workflow.run(ctx=Context.from_dict(workflow, saved))
        while workflow.ran < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)  # it waits again
        return deadline(handler) == before

    assert run(go())


def test_an_event_that_comes_before_anybody_waits_for_it_is_found_by_who_does() -> None:
    class Late(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(0.01)
            return StopEvent(result=(await ctx.wait_for_event(Answer)).text)

    async def go() -> Any:
        handler = Late().run()
        await asyncio.sleep(0)
        await handler.send_event(Answer(text="early"))
        return await handler

    assert run(go()) == "early"
