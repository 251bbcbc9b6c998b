"""How events find their steps, how steps run, and how lists and joins bring them together."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import pytest
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.collect import Collect, Take
from perdure.errors import WorkflowRuntimeError, WorkflowTimeoutError, WorkflowValidationError
from perdure.events import Event, InputRequiredEvent, StartEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed, wait_none


async def result(workflow: Workflow[Any], **fields: Any) -> Any:
    return await workflow.run(**fields)


class Item(Event):
    number: int = 0


class Special(Item):
    pass


class Other(Event):
    number: int = 0


class Joined(Event):
    numbers: tuple[int, ...] = ()


# --- routing ------------------------------------------------------------------------------------------


class Routes(Workflow):
    taken: list[str]

    def __init__(self) -> None:
        super().__init__(timeout=0.05)
        self.taken = []

    @step
    async def begin(self, ev: StartEvent) -> Item | Special:
        return Special() if ev.special else Item()

    @step
    async def exact(self, ev: Item) -> None:
        self.taken.append("exact")

    @step
    async def also(self, ev: Item) -> None:
        self.taken.append("also")

    @step(accept_event_subclasses=True)
    async def wide(self, ev: Item) -> None:
        self.taken.append("wide")

    @step
    async def special(self, ev: Special) -> StopEvent | None:
        self.taken.append("special")
        return None


@pytest.mark.parametrize(
    ("special", "taken"), [(False, ["also", "exact", "wide"]), (True, ["special", "wide"])]
)
def test_an_event_goes_to_every_step_that_takes_its_exact_type_or_asks_for_subclasses(
    special: bool, taken: list[str]
) -> None:
    workflow = Routes()
    with pytest.raises(WorkflowTimeoutError):
        run(result(workflow, special=special))
    assert sorted(workflow.taken) == taken


def test_a_step_that_takes_event_does_not_take_its_subclasses() -> None:
    class Base(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Item | Event:
            return Item()

        @step
        async def any(self, ev: Event) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match="never consumed: Item"):
        run(result(Base()))


@pytest.mark.parametrize("returned", ["text", 3, [Item()]])
def test_what_is_returned_must_be_an_event(returned: Any) -> None:
    class Returns(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return returned  # type: ignore[no-any-return]

    with pytest.raises(WorkflowRuntimeError, match=f"only returned {type(returned).__name__} instead"):
        run(result(Returns()))


def test_the_type_that_is_returned_need_not_be_the_annotated_one() -> None:
    class Returns(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return Other()  # type: ignore[return-value]

        @step(skip_graph_checks=["reachability"])
        async def other(self, ev: Other) -> StopEvent:
            return StopEvent(result="other")

    assert run(result(Returns(disable_validation=True))) == "other"


def test_a_stop_event_that_is_sent_ends_nothing_and_one_that_is_returned_ends_all() -> None:
    class Ends(Workflow):
        cancelled = False

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | Other:
            ctx.send_event(StopEvent(result="sent"))
            ctx.send_event(Item())
            return Other()

        @step
        async def slow(self, ev: Item) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise

        @step
        async def ends(self, ev: Other) -> StopEvent:
            await asyncio.sleep(0.001)
            return StopEvent(result="returned")

    async def go() -> tuple[Any, bool]:
        workflow = Ends()
        return await workflow.run(), workflow.cancelled

    assert run(go()) == ("returned", True)


def test_a_returned_question_is_shown_without_a_step_that_takes_it() -> None:
    class Question(InputRequiredEvent):
        text: str

    class Asks(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Question:
            ctx.send_event(Item())
            return Question(text="?")

        @step(skip_graph_checks=["reachability"])
        async def end(self, ev: Item) -> StopEvent:
            await asyncio.sleep(0.001)
            return StopEvent()

    async def go() -> list[str]:
        handler = Asks(disable_validation=True).run()
        return [type(event).__name__ async for event in handler.stream_events()]

    assert run(go()) == ["Question", "StopEvent"]


# --- how they run -------------------------------------------------------------------------------------


def test_sent_events_come_in_call_order_and_before_what_is_returned() -> None:
    class Order(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item:
            for number in range(3):
                ctx.send_event(Item(number=number))
            return Item(number=3)

        @step(num_workers=1)
        async def take(self, ctx: Context, ev: Item) -> StopEvent | None:
            await ctx.store.append("seen", ev.number)
            return StopEvent(result=await ctx.store.get("seen")) if ev.number == 3 else None

    assert run(result(Order())) == [0, 1, 2, 3]


def test_a_step_that_is_not_async_runs_in_a_thread_and_keeps_contextvars() -> None:
    user = contextvars.ContextVar[str]("user")

    class Threads(Workflow):
        @step
        def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            assert Context.get_step_context() is ctx
            return StopEvent(result=(user.get(), threading.current_thread() is threading.main_thread()))

    async def go() -> Any:
        user.set("ada")
        return await Threads().run()

    assert asyncio.run(go()) == ("ada", False)  # a thread takes real time


def test_a_retry_goes_to_the_head_of_its_queue_and_holds_no_worker_while_it_waits() -> None:
    seen: list[tuple[int, int]] = []

    class Retries(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | None:
            for number in range(4):
                ctx.send_event(Item(number=number))
            return None

        @step(num_workers=1, retry_policy=retry_policy(wait=ev_wait, stop=stop_after_attempt(2)))
        async def take(self, ctx: Context, ev: Item) -> StopEvent | None:
            attempt = ctx.retry_info().retry_number
            seen.append((ev.number, attempt))
            if ev.number == 0 and attempt == 0:
                raise LookupError
            if ev.number == 1:
                await asyncio.sleep(0.05)
            return StopEvent() if ev.number == 3 else None

    run(result(Retries()))
    assert seen == [(0, 0), (1, 0), (0, 1), (2, 0), (3, 0)]


ev_wait = wait_fixed(0.01)


def test_a_cancelled_error_of_a_step_is_its_failure() -> None:
    class Cancels(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            raise asyncio.CancelledError("of its own")

    with pytest.raises(WorkflowRuntimeError, match=r"step only raised CancelledError\('of its own'\)"):
        run(result(Cancels()))


def test_an_extra_parameter_without_a_default_fails_when_the_step_is_called() -> None:
    class Extra(Workflow):
        @step
        async def only(self, ev: StartEvent, more: int) -> StopEvent:
            return StopEvent()

    class Default(Workflow):
        @step
        async def only(self, ev: StartEvent, more: int = 3) -> StopEvent:
            return StopEvent(result=more)

    with pytest.raises(TypeError, match="more"):
        run(result(Extra()))
    assert run(result(Default())) == 3


# --- lists --------------------------------------------------------------------------------------------


class Lists(Workflow):
    """Returns whatever `run(given=...)` says."""

    @step
    async def begin(self, ev: StartEvent) -> list[Item] | None:
        return ev.given  # type: ignore[no-any-return]

    @step
    async def work(self, ev: Item) -> Other | None:
        if ev.number < 0:
            return None
        await asyncio.sleep(0.002 * ev.number)
        return Other(number=ev.number)

    @step
    async def join(self, ev: list[Other]) -> StopEvent:
        return StopEvent(result=[e.number for e in ev])


def items(*numbers: int) -> list[Item]:
    return [Item(number=number) for number in numbers]


def test_a_list_is_joined_in_the_order_of_arrival_without_what_became_none() -> None:
    assert run(result(Lists(), given=items(9, -1, 0, 4))) == [0, 4, 9]


def test_an_empty_list_calls_the_join_with_nothing_and_none_opens_no_stream() -> None:
    assert run(result(Lists(), given=[])) == []
    with pytest.raises(WorkflowTimeoutError):
        run(result(Lists(timeout=0.02), given=None))


@pytest.mark.parametrize(
    ("given", "message"), [(Item(), "declares a list"), ([Item(), "x"], "a list with a str in it")]
)
def test_a_list_must_be_one_of_events(given: Any, message: str) -> None:
    with pytest.raises(WorkflowRuntimeError, match=message):
        run(result(Lists(), given=given))


def test_an_async_generator_is_no_step() -> None:
    with pytest.raises(WorkflowValidationError, match="async generators"):

        class Generates(Workflow):
            @step
            async def begin(self, ev: StartEvent) -> AsyncGenerator[Item, None]:
                yield Item()


def test_take_calls_at_the_nth_and_the_others_keep_running() -> None:
    class Takes(Workflow):
        ran = 0

        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return items(0, 1, 2)

        @step
        async def work(self, ev: Item) -> Other:
            await asyncio.sleep(0.01 * ev.number)
            self.ran += 1
            return Other(number=ev.number)

        @step
        async def first(self, ev: Annotated[list[Other], Collect(Take(1))]) -> StopEvent:
            (only,) = ev
            await asyncio.sleep(0.05)
            return StopEvent(result=(only.number, self.ran))

    assert run(result(Takes())) == (0, 3)


def test_what_is_sent_does_not_join_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    class Sends(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> list[Item]:
            ctx.send_event(Item(number=7))
            with pytest.raises(WorkflowRuntimeError, match="list"):
                ctx.send_event(Item(number=8), step="join")
            return items(1)

        @step
        async def join(self, ev: list[Item]) -> StopEvent:
            return StopEvent(result=[e.number for e in ev])

    assert run(result(Sends())) == [1]
    assert "Item goes nowhere" in caplog.text


# --- joins --------------------------------------------------------------------------------------------


def test_several_parameters_are_called_for_one_set_after_the_other() -> None:
    class Joins(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Item | Other | None:
            for number in (1, 2):
                ctx.send_event(Item(number=number))
            for number in (10, 20):
                ctx.send_event(Other(number=number))
            return None

        @step(num_workers=1)
        async def join(self, one: Item, other: Other) -> Joined:
            return Joined(numbers=(one.number, other.number))

        @step
        async def end(self, ctx: Context, ev: Joined) -> StopEvent | None:
            found = ctx.collect_events(ev, [Joined, Joined])
            return StopEvent(result=[e.numbers for e in found]) if found else None

    assert run(result(Joins())) == [(1, 10), (2, 20)]


def test_a_union_in_one_of_several_parameters_is_refused() -> None:
    with pytest.raises(WorkflowValidationError, match="one event type for each"):

        class Joins(Workflow):
            @step
            async def join(self, one: Item | Special, other: Other) -> StopEvent:
                return StopEvent()


def test_a_join_within_a_list_takes_what_is_of_one_list_and_the_list_closes_without_the_rest() -> None:
    class Joins(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item | Other]:
            return [Item(number=1), Item(number=2), Other(number=10)]

        @step
        async def join(self, one: Item, other: Other) -> Joined:
            return Joined(numbers=(one.number, other.number))

        @step
        async def end(self, ev: list[Joined]) -> StopEvent:
            return StopEvent(result=[e.numbers for e in ev])

    assert run(result(Joins())) == [(1, 10)]


def test_num_workers_counts_per_step_and_per_run() -> None:
    class Both(Workflow):
        now = 0
        most = 0

        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> list[Item]:
            return items(*range(6))

        @step(num_workers=2)
        async def work(self, ev: Item) -> Other:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            return Other()

        @step
        async def join(self, ev: list[Other]) -> StopEvent:
            return StopEvent(result=self.most)

    async def go() -> Any:
        workflow = Both()
        await asyncio.gather(workflow.run(), workflow.run())
        return workflow.most

    assert run(result(Both())) == 2
    assert run(go()) == 4


def test_four_workers_are_the_default() -> None:
    assert Lists.work._step_config.num_workers == 4  # type: ignore[attr-defined]


def test_a_failure_without_a_policy_is_not_tried_again_and_with_one_n_times_in_all() -> None:
    class Fails(Workflow):
        ran = 0

        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            self.ran += 1
            raise LookupError(self.ran)

    class Again(Fails):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
        async def only(self, ev: StartEvent) -> StopEvent:
            self.ran += 1
            raise LookupError(self.ran)

    for kind, times in ((Fails, 1), (Again, 3)):
        with pytest.raises(LookupError) as caught:
            run(result(kind()))
        assert caught.value.args == (times,)


def test_a_policy_is_given_a_seed_when_it_takes_one_and_may_be_any_object() -> None:
    asked: list[tuple[int, bool]] = []

    class Seeded:
        def next(self, elapsed_time: float, attempts: int, error: Exception, *, seed: int) -> float | None:
            asked.append((attempts, isinstance(seed, int)))
            return 0.0 if attempts < 2 else None

    class Old:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            asked.append((attempts, False))
            return None

    for policy in (Seeded(), Old()):

        class Fails(Workflow):
            @step(retry_policy=policy)  # type: ignore[arg-type]
            async def only(self, ev: StartEvent) -> StopEvent:
                raise LookupError

        with pytest.raises(LookupError):
            run(result(Fails()))
    assert asked == [(1, True), (2, True), (1, False)]


def test_a_stop_event_in_a_list_ends_the_run() -> None:
    class Ends(Workflow):
        began = False

        @step
        async def begin(self, ev: StartEvent) -> list[Item | StopEvent]:
            return [Item(number=1), StopEvent(result="ended"), Item(number=2)]

        @step
        async def work(self, ev: Item) -> None:
            self.began = True

    async def go() -> tuple[Any, bool]:
        workflow = Ends(timeout=1)
        return await workflow.run(), workflow.began

    assert run(go()) == ("ended", False)
