"""A workflow as an author makes it, validates it and runs it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.errors import (
    ContextStateError,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
)
from perdure.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    UnhandledEvent,
    WorkflowIdleEvent,
)
from perdure.store.memory import MemoryStore


async def result(workflow: Workflow[Any], **fields: Any) -> Any:
    return await workflow.run(**fields)


class Item(Event):
    number: int = 0


class Odd(Event):
    pass


class Reply(HumanResponseEvent):
    number: int = 0


class Once(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await ctx.store.get("seen", default=ev.get("seen")))


class Sleeps(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(60)
        return StopEvent()


# --- construction -----------------------------------------------------------------------------------


def test_defaults_are_the_origins() -> None:
    workflow = Once()
    assert (workflow.timeout, workflow.workflow_name) == (45.0, f"{__name__}.Once")
    assert (workflow.start_event_class, workflow.stop_event_class) == (StartEvent, StopEvent)
    assert set(workflow.events) == {StartEvent, StopEvent}
    assert Once(timeout=None).timeout is None
    assert Once(workflow_name="mine").workflow_name == "mine"


def test_the_name_of_a_local_class_says_where_it_is() -> None:
    class Local(Once):
        pass

    assert Local().workflow_name.endswith("<locals>.Local")


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2"])
def test_num_concurrent_runs_is_a_whole_number_above_zero(count: Any) -> None:
    with pytest.raises(WorkflowValidationError, match="num_concurrent_runs"):
        Once(num_concurrent_runs=count)


def test_an_unknown_graph_check_is_refused_at_once() -> None:
    with pytest.raises(WorkflowValidationError, match="spelling"):
        Once(skip_graph_checks={"spelling"})


def test_start_and_stop_are_checked_at_construction_whatever_is_disabled() -> None:
    class NoStop(Workflow):
        @step
        async def only(self, ev: StartEvent) -> None: ...

    class NoSteps(Workflow):
        pass

    for kind in (NoStop, NoSteps):
        with pytest.raises(WorkflowConfigurationError):
            kind(disable_validation=True)


def test_a_class_whose_init_does_not_call_its_parents_has_the_defaults() -> None:
    class Own(Once):
        def __init__(self, seen: int) -> None:
            self.seen = seen

    workflow = Own(3)
    assert workflow.timeout == 45.0
    assert run(result(workflow, seen=workflow.seen)) == 3


def test_steps_are_inherited_and_overridden_and_an_override_must_be_decorated() -> None:
    class Child(Once):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="child")

    class Plain(Once):
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    class Grandchild(Child):
        pass

    assert run(result(Grandchild())) == "child"
    with pytest.raises(WorkflowConfigurationError):
        Plain()


def test_a_method_is_looked_up_when_it_is_called() -> None:
    workflow = Once()

    async def other(ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result="replaced")

    workflow.only = other  # type: ignore[method-assign]
    assert run(result(workflow)) == "replaced"


# --- free functions -----------------------------------------------------------------------------------


def test_free_functions_belong_to_one_class_and_not_to_its_children() -> None:
    class Free(Workflow):
        pass

    @step(workflow=Free)
    async def begin(ev: StartEvent) -> StopEvent:
        return StopEvent(result="free")

    class Child(Free):
        pass

    assert run(result(Free())) == "free"
    with pytest.raises(WorkflowConfigurationError):
        Child()


def test_a_free_function_needs_its_workflow() -> None:
    with pytest.raises(WorkflowValidationError, match="workflow="):

        @step
        async def begin(ev: StartEvent) -> StopEvent:
            return StopEvent()


def test_add_step_refuses_what_is_no_step_and_a_name_that_is_taken() -> None:
    async def plain(ev: StartEvent) -> StopEvent:
        return StopEvent()

    class Taken(Once):
        pass

    with pytest.raises(WorkflowValidationError, match="not decorated"):
        Taken.add_step(plain)

    with pytest.raises(WorkflowValidationError, match="already"):

        @step(workflow=Taken)
        async def only(ev: StartEvent) -> StopEvent:
            return StopEvent()


def test_a_step_that_is_added_is_validated_and_runs() -> None:
    class Growing(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    workflow = Growing()
    assert run(result(workflow)) is None

    @step(workflow=Growing)
    async def lonely(ev: Item) -> StopEvent:
        return StopEvent()

    with pytest.raises(WorkflowValidationError, match="never produced"):
        run(result(workflow))


# --- validation ---------------------------------------------------------------------------------------


class Wrong(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Item | StopEvent:
        return StopEvent(result="ran")


def test_a_wrong_graph_is_refused_inside_run_unless_validation_is_disabled() -> None:
    async def go() -> None:
        with pytest.raises(WorkflowValidationError, match="never consumed"):
            Wrong().run()

    run(go())
    assert run(result(Wrong(disable_validation=True))) == "ran"
    with pytest.raises(WorkflowValidationError):
        Wrong(disable_validation=True).validate()


def test_validate_says_whether_a_person_takes_part() -> None:
    class Human(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent()

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    assert Human().validate() is True
    assert Once().validate() is False


# --- run ----------------------------------------------------------------------------------------------


def test_run_needs_a_running_event_loop() -> None:
    with pytest.raises(RuntimeError):
        Once().run()


def test_a_start_event_that_cannot_be_built_or_is_none_is_refused_inside_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Order(StartEvent):
        amount: int

    class Shop(Workflow):
        @step
        async def sell(self, ev: Order) -> StopEvent:
            return StopEvent(result=ev.amount)

    async def go() -> Any:
        with pytest.raises(WorkflowRuntimeError, match=r"(?s)Order.*amount"):
            Shop().run(amount="much")
        with pytest.raises(ValueError, match="StartEvent"):
            Shop().run(start_event=Item())  # type: ignore[arg-type]
        return await Shop().run(start_event=Order(amount=3), amount=4)

    assert run(go()) == 3
    assert "ignored" in caplog.text


def test_the_result_is_the_stop_events_or_the_event_itself() -> None:
    class Receipt(StopEvent):
        total: int

    class Shop(Workflow):
        @step
        async def sell(self, ev: StartEvent) -> Receipt:
            return Receipt(total=3)

    async def go() -> tuple[Any, Any]:
        handler = Shop().run()
        assert handler.get_stop_event() is None
        return await handler, await handler.stop_event_result()

    receipt, event = run(go())
    assert receipt is event
    assert receipt == Receipt(total=3)


def test_a_run_is_running_as_soon_as_it_is_made_and_can_be_saved_then() -> None:
    async def go() -> Any:
        workflow = Once()
        handler = workflow.run(seen=5)
        assert handler.ctx.is_running
        saved = handler.ctx.to_dict()
        assert saved["is_running"] == "true"
        await handler.cancel_run()
        return await workflow.run(ctx=Context.from_dict(workflow, saved))

    assert run(go()) == 5


def test_a_context_that_runs_is_refused_and_a_finished_one_gives_its_state() -> None:
    async def go() -> Any:
        workflow = Once()
        ctx: Context[Any] = Context(workflow)
        await ctx.store.set("seen", 7)
        handler = workflow.run(ctx=ctx)
        with pytest.raises(ContextStateError, match="already running"):
            workflow.run(ctx=ctx)
        first = await handler
        await ctx.store.set("seen", 8)
        return first, await workflow.run(ctx=ctx, seen=1)

    assert run(go()) == (7, 8)


def test_a_resumed_run_keeps_the_time_that_it_has_spent_and_the_time_between_is_free() -> None:
    async def go() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        workflow = Sleeps(timeout=60)
        handler = workflow.run()
        await asyncio.sleep(0.03)
        saved = handler.ctx.to_dict()
        spent = handler._run.loop.alive()
        await handler.cancel_run()
        await asyncio.sleep(0.1)
        resumed = workflow.run(ctx=Context.from_dict(workflow, saved))
        alive = resumed._run.loop.alive()
        elapsed = loop.time() - began
        await resumed.cancel_run()
        return spent, alive, elapsed

    spent, alive, elapsed = asyncio.run(go())
    assert spent >= 0.029
    assert 0.029 <= alive <= elapsed - 0.099


def test_a_run_ends_when_its_alive_time_is_over() -> None:
    with pytest.raises(WorkflowTimeoutError, match="only"):
        run(result(Sleeps(timeout=0.01)))


def test_the_default_timeout_is_none_with_a_store() -> None:
    async def go() -> tuple[float | None, float | None, float | None]:
        found = []
        for workflow in (Sleeps(), Sleeps(timeout=7)):
            handler = workflow.run(run_id=f"r{len(found)}", store=MemoryStore())
            while not handler._opening.done():  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            found.append(handler._run.loop.timeout)
            await handler.cancel_run()
        memory = Sleeps().run()
        await memory.cancel_run()
        return found[0], found[1], memory._run.loop.timeout

    assert run(go()) == (None, 7, 45.0)


# --- what it tells ------------------------------------------------------------------------------------


class Queueing(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
        for number in range(2):
            ctx.send_event(Item(number=number))
        return None

    @step(num_workers=1)
    async def work(self, ctx: Context, ev: Item) -> StopEvent | None:
        return StopEvent() if ev.number else None


def test_verbose_prints_what_the_steps_do_or_logs_it(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(result(Queueing(verbose=True)))
    printed = capsys.readouterr().out
    for line in ("[begin:1] started from StartEvent", "[begin:1] ended without an event"):
        assert line in printed
    assert "[work:3] queued with Item" in printed
    assert "ended with StopEvent" in printed
    run(result(Queueing()))
    assert not capsys.readouterr().out
    with caplog.at_level(logging.INFO, "perdure.verbose"):
        run(result(Queueing(verbose=True)))
    assert "[begin:1] started from StartEvent" in caplog.text
    assert not capsys.readouterr().out


def test_work_that_queues_is_preparing_and_then_runs() -> None:
    async def go() -> list[tuple[str, str, StepState]]:
        handler = Queueing().run()
        return [
            (event.name, event.worker_id, event.step_state)
            async for event in handler.stream_events(expose_internal=True)
            if isinstance(event, StepStateChanged)
        ]

    states = run(go())
    second = [state for name, number, state in states if (name, number) == ("work", "3")]
    assert second[:2] == [StepState.PREPARING, StepState.RUNNING]
    first = (state for name, number, state in states if (name, number) == ("work", "2"))
    assert next(first) is StepState.RUNNING


def test_a_steps_events_are_told_by_their_classes_when_it_begins_and_when_it_ends() -> None:
    async def go() -> list[tuple[StepState, str, str | None]]:
        return [
            (event.step_state, event.input_event_name, event.output_event_name)
            async for event in Queueing().run().stream_events(expose_internal=True)
            if isinstance(event, StepStateChanged) and event.name == "work"
        ]

    states = run(go())
    assert {given for _, given, _ in states} == {str(Item)}
    assert states[-1] == (StepState.NOT_RUNNING, str(Item), str(StopEvent))
    assert {made for state, _, made in states if state is not StepState.NOT_RUNNING} == {None}


class Talks(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Odd | None:
        return None

    @step
    async def answer(self, ctx: Context, ev: Reply | Odd) -> StopEvent | None:
        if isinstance(ev, Reply) and ev.number == 1:
            await ctx.wait_for_event(Reply, waiter_id="more")
            return StopEvent()
        return None


def test_who_begins_to_read_right_after_run_misses_nothing() -> None:
    async def read(handler: Any) -> list[str]:
        return [type(event).__name__ async for event in handler.stream_events(expose_internal=True)]

    async def go() -> list[str]:
        handler = Once().run()
        return await asyncio.create_task(read(handler))

    assert run(go()) == ["StepStateChanged", "StepStateChanged", "StopEvent"]


def test_a_run_says_each_time_that_it_comes_to_rest() -> None:
    async def go() -> list[str]:
        handler = Talks().run()
        seen = []
        replies = iter([0, 1, 2])
        async for event in handler.stream_events(expose_internal=True):
            if isinstance(event, WorkflowIdleEvent):
                seen.append("idle")
                await handler.send_event(Reply(number=next(replies)))
            elif isinstance(event, StopEvent):
                seen.append("stop")
        return seen

    assert run(go()) == ["idle", "idle", "idle", "stop"]


def test_nothing_in_flight_is_logged_once_with_what_would_wake_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def go() -> None:
        handler = Talks().run()
        replies = iter([0, 1, 2])
        async for event in handler.stream_events(expose_internal=True):
            if isinstance(event, WorkflowIdleEvent):
                await handler.send_event(Reply(number=next(replies)))

    with caplog.at_level(logging.INFO, "perdure.run"):
        run(go())
    told = [record.getMessage() for record in caplog.records if "nothing in flight" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("events that would wake it: Odd, Reply")


def test_the_summary_of_a_run_that_waits_names_what_would_wake_it() -> None:
    async def wakes(store: MemoryStore, active: list[str]) -> list[str]:
        while True:
            summary = await _summary(store)
            if summary.get("waiting") and summary["activeSteps"] == active:
                named: list[str] = summary["wakes"]
                return named
            await asyncio.sleep(0.001)

    async def go() -> list[list[str]]:
        store = MemoryStore()
        handler = Talks().run(run_id="r", store=store)
        found = [await wakes(store, [])]  # nothing is in flight
        await handler.send_event(Reply(number=1))
        found.append(await wakes(store, ["answer"]))  # it is in wait_for_event
        await handler.cancel_run()
        return found

    assert run(go()) == [["Odd", "Reply"], ["Reply"]]


async def _summary(store: MemoryStore) -> dict[str, Any]:
    for found in store.runs.values():
        if found.summary:
            summary: dict[str, Any] = json.loads(found.summary)
            return summary
    return {}


def test_an_event_that_no_step_takes_is_told() -> None:
    async def go() -> list[tuple[str, bool]]:
        class Lost(Workflow):
            @step
            async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
                ctx.send_event(Item())
                await asyncio.sleep(0.001)
                return StopEvent()

        return [
            (event.event_type, event.idle)
            async for event in Lost().run().stream_events(expose_internal=True)
            if isinstance(event, UnhandledEvent)
        ]

    assert run(go()) == [("Item", False)]


# --- names that run() keeps for itself ----------------------------------------------------------------


def test_a_field_that_run_has_a_parameter_of_its_own_for_is_given_by_a_start_event() -> None:
    class Shop(StartEvent):
        store: str
        wait: int

    class Sells(Workflow):
        @step
        async def sell(self, ev: Shop) -> StopEvent:
            return StopEvent(result=(ev.store, ev.wait))

    assert run(result(Sells(), start_event=Shop(store="corner", wait=3))) == ("corner", 3)


def test_the_engines_own_events_are_kept_from_when_somebody_reads_them() -> None:
    async def go() -> list[type[Event]]:
        handler = Once().run()
        await handler
        return [type(event) async for event in handler.stream_events(expose_internal=True)]

    assert run(go()) == [StopEvent]
