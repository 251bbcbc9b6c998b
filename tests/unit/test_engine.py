"""The engine in memory: what a workflow author relies on."""

import asyncio
import contextlib
from typing import Annotated

import pytest
from virtual_time import run_to_end as run

from perdure import Context, Workflow, catch_error, step
from perdure.collect import Collect, Take
from perdure.errors import WorkflowCancelledByUser, WorkflowRuntimeError, WorkflowTimeoutError
from perdure.events import (
    Event,
    StartEvent,
    StepFailedEvent,
    StepStateChanged,
    StopEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
)
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_none
from perdure.store.memory import MemoryStore
from perdure.testing import WorkflowTestRunner


class Item(Event):
    number: int


class Done(Event):
    number: int


class Go(Event):
    pass


class Answer(Event):
    text: str


class Chain(Workflow):
    @step
    async def first(self, ev: StartEvent) -> Item:
        return Item(number=ev.start)

    @step
    async def second(self, ctx: Context, ev: Item) -> Item | StopEvent:
        if ev.number == 0:
            return StopEvent(result="landed")
        return Item(number=ev.number - 1)


def test_a_chain_of_events_ends_with_the_stop_events_result():
    async def go():
        return await Chain().run(start=10)

    assert run(go()) == "landed"


class FanOut(Workflow):
    running = 0
    most = 0

    @step
    async def split(self, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=3)
    async def work(self, ev: Item) -> Done:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return Done(number=ev.number * 2)

    @step
    async def join(self, events: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_list_is_joined_once_when_all_its_descendants_are_done(count):
    async def go():
        return await FanOut().run(count=count)

    assert run(go()) == [2 * n for n in range(count)]


def test_num_workers_bounds_the_executions_of_a_step():
    async def go():
        workflow = FanOut()
        await workflow.run(count=20)
        return workflow.most

    assert run(go()) == 3


class Collecting(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Item | None:
        for n in range(ev.count):
            ctx.send_event(Item(number=n))
        await ctx.store.set("count", ev.count)
        return None

    @step
    async def work(self, ev: Item) -> Done:
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        found = ctx.collect_events(ev, [Done] * await ctx.store.get("count"))
        if found is None:
            return None
        return StopEvent(result=sorted(e.number for e in found))


def test_sent_events_are_collected_once_each():
    async def go():
        return await Collecting().run(count=30)

    assert run(go()) == list(range(30))


class Failing(Workflow):
    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise ev.error


def test_awaiting_a_failed_run_raises_the_steps_own_exception():
    error = KeyError("gone")

    async def go():
        handler = Failing().run(error=error)
        with pytest.raises(KeyError) as caught:
            await handler
        events = [event async for event in handler.stream_events()]
        return caught.value, events

    caught, events = run(go())
    assert caught is error
    assert type(events[-1]) is WorkflowFailedEvent


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_exit_in_a_step_is_a_failure_of_the_step(error):
    async def go():
        handler = Failing().run(error=error)
        with pytest.raises(WorkflowRuntimeError, match=type(error).__name__):
            await asyncio.wait_for(handler, 5)

    run(go())


class Waiting(Workflow):
    entered = 0

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.entered += 1
        first = await ctx.wait_for_event(Answer, waiter_event=Go())
        second = await ctx.wait_for_event(Answer)
        return StopEvent(result=[first.text, second.text])


def test_a_step_that_waits_goes_on_where_it_was_and_two_waits_take_two_events():
    async def go():
        workflow = Waiting()
        handler = workflow.run()
        async for event in handler.stream_events():
            if type(event) is Go:
                await handler.send_event(Answer(text="a"))
                await handler.send_event(Answer(text="b"))
        return await handler, workflow.entered

    assert run(go()) == (["a", "b"], 1)


class Impatient(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(Answer, timeout=ev.timeout)
        return StopEvent()


def test_a_wait_ends_with_a_timeout_error():
    async def go():
        with pytest.raises(TimeoutError):
            await Impatient().run(timeout=0.01)

    run(go())


def test_a_run_ends_when_its_time_is_over():
    async def go():
        handler = Impatient(timeout=0.02).run(timeout=None)
        with pytest.raises(WorkflowTimeoutError):
            await handler

    run(go())


def test_a_cancelled_run_raises_and_can_be_taken_up_again():
    async def go():
        workflow = Waiting()
        handler = workflow.run()
        async for event in handler.stream_events():
            if type(event) is Go:
                break
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        assert handler.ctx.is_running
        again = workflow.run(ctx=handler.ctx)
        await again.send_event(Answer(text="a"))
        await again.send_event(Answer(text="b"))
        return await again

    assert run(go()) == ["a", "b"]


class Wrong(Workflow):
    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        return "no event"


def test_a_step_that_returns_no_event_fails_the_run_with_a_message_that_says_so():
    async def go():
        with pytest.raises(WorkflowRuntimeError, match="returned str instead of an Event instance"):
            await Wrong().run()

    run(go())


class Sync(Workflow):
    @step
    def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(Item(number=1))
        return StopEvent(result=Context.get_step_context() is ctx)


def test_a_plain_function_runs_in_a_thread_with_its_context():
    async def go():
        handler = Sync().run()
        events = [event async for event in handler.stream_events()]
        return [type(e) for e in events], await handler

    assert asyncio.run(go()) == ([Item, StopEvent], True)


class Gathering(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first, second = await asyncio.gather(ctx.wait_for_event(Answer), ctx.wait_for_event(Go))
        return StopEvent(result=[first.text, type(second).__name__])


def test_two_waits_at_once_in_a_step_each_get_their_event():
    async def go():
        handler = Gathering().run()
        await asyncio.sleep(0.01)
        await handler.send_event(Answer(text="a"))
        await asyncio.sleep(0.01)
        await handler.send_event(Go())
        return await handler

    assert run(go()) == ["a", "Go"]


class Answered(Workflow):
    @step
    async def start(self, ctx: Context, ev: StartEvent) -> Item:
        return Item(number=0)

    @step(num_workers=1)
    async def ask(self, ctx: Context, ev: Item) -> StopEvent:
        self.waits = True
        return StopEvent(result=(await ctx.wait_for_event(Done)).number)

    @step
    async def tell(self, ctx: Context, ev: Item) -> Done:
        while not getattr(self, "waits", False):
            await asyncio.sleep(0.001)
        return Done(number=7)


def test_an_event_that_a_step_returns_answers_a_wait():
    async def go():
        return await Answered(disable_validation=True).run()

    assert run(go()) == 7


class Both(Workflow):
    inputs = 0

    @step
    async def ask(self, ctx: Context, ev: StartEvent | Answer) -> StopEvent | None:
        if isinstance(ev, Answer):
            self.inputs += 1
            return None
        answer = await ctx.wait_for_event(Answer, waiter_event=Go())
        await asyncio.sleep(0.01)
        return StopEvent(result=answer.text)


def test_a_step_woken_by_an_event_does_not_also_get_it_as_input():
    async def go():
        workflow = Both(disable_validation=True)
        handler = workflow.run()
        async for event in handler.stream_events():
            if type(event) is Go:
                await handler.send_event(Answer(text="a"))
        return await handler, workflow.inputs

    assert run(go()) == ("a", 0)


class GivesUp(Workflow):
    """The first two items give their wait up; the other holds the only worker meanwhile."""

    @step
    async def split(self, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(3)]

    @step(num_workers=1)
    async def ask(self, ctx: Context, ev: Item) -> Done:
        if ev.number < 2:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ctx.wait_for_event(Answer, requirements={"text": "a"}), 0.03)
        else:
            await asyncio.sleep(0.05)
        return Done(number=ev.number)

    @step
    async def join(self, events: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


@pytest.mark.parametrize("answer", [True, False])
def test_a_step_may_give_up_a_wait_by_a_timeout_of_its_own(answer):
    async def go():
        handler = GivesUp().run()
        await asyncio.sleep(0.015)
        if answer:
            await handler.send_event(Answer(text="a"))
        result = await handler
        return result, len(handler._run.loop.timers)

    assert run(go()) == ([0, 1, 2], 0)


def test_a_step_that_gave_up_its_wait_does_not_count_as_waiting():
    class Runs(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ctx.wait_for_event(Answer), 0.001)
            queue = ctx._run.loop.state.steps["ask"]
            return StopEvent(result=[len(queue.waiting), len(queue.active)])

    async def go():
        return await Runs().run()

    assert run(go()) == [0, 1]


class Forgets(Workflow):
    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
        return None


def test_a_run_with_nothing_in_flight_says_so_once(caplog):
    async def go():
        handler = Forgets(timeout=0.05).run()
        with contextlib.suppress(WorkflowTimeoutError):
            await handler
        return [type(e) async for e in handler.stream_events()]

    assert run(go()) == [WorkflowTimedOutEvent]
    assert [r for r in caplog.text.splitlines() if "nothing in flight" in r][1:] == []
    assert "nothing in flight" in caplog.text


def test_the_engines_own_events_are_shown_to_who_asks_for_them():
    async def go():
        handler = Forgets(timeout=0.05).run()
        return [type(e) async for e in handler.stream_events(expose_internal=True)]

    assert run(go()) == [StepStateChanged, StepStateChanged, WorkflowIdleEvent, WorkflowTimedOutEvent]


def test_the_event_of_a_timeout_names_the_steps_that_were_running():
    async def go():
        handler = Impatient(timeout=0.02).run(timeout=None)
        with contextlib.suppress(WorkflowTimeoutError):
            await handler
        return handler.get_stop_event()

    event = run(go())
    assert (event.timeout, event.active_steps) == (0.02, ["ask"])


class Stubborn(Workflow):
    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        while True:
            try:
                await asyncio.sleep(0.02)
                if getattr(self, "free", False):
                    return StopEvent()
            except asyncio.CancelledError:
                self.ignored = True


def test_a_cancel_ends_the_run_though_a_step_ignores_it_and_its_late_return_is_dropped(caplog):
    async def go():
        workflow = Stubborn()
        handler = workflow.run()
        await asyncio.sleep(0.01)
        await handler.cancel_run(timeout=3)
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        workflow.free = True
        await asyncio.sleep(0.05)
        return workflow.ignored

    assert run(go())
    assert "dropped what step start returned" in caplog.text


class Retried(Workflow):
    @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(3)))
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        info = ctx.retry_info()
        if info.retry_number == 2 and not ev.always:
            return StopEvent(result=[info.last_exception.args, info.last_failed_at is not None])
        raise LookupError("no", ctx.attempt)


def test_retry_info_says_what_the_last_try_raised():
    async def go():
        return await Retried().run(always=False)

    assert run(go()) == [("no", 1), True]


def test_the_event_of_a_failure_counts_the_attempts():
    async def go():
        handler = Retried().run(always=True)
        with contextlib.suppress(LookupError):
            await handler
        return handler.get_stop_event()

    event = run(go())
    assert (event.step_name, event.attempts) == ("start", 3)
    assert event.elapsed_seconds < 5


class Judge(Workflow):
    @step(retry_policy=retry_policy(retry=lambda error: error.missing))
    async def start(self, ev: StartEvent) -> StopEvent:
        raise LookupError("no")


def test_a_retry_policy_that_raises_fails_the_step_with_its_error():
    async def go():
        with pytest.raises(AttributeError) as caught:
            await Judge().run()
        return caught.value.__cause__

    assert type(run(go())) is LookupError


class Endless(Workflow):
    """Its recovery leads back, by a list, to what fails."""

    joined = 0

    @step
    async def start(self, ev: StartEvent) -> Go:
        return Go()

    @step
    async def split(self, ev: Go) -> list[Item]:
        return [Item(number=1)]

    @step
    async def join(self, events: list[Item]) -> StopEvent:
        self.joined += 1
        raise LookupError("join")

    @catch_error
    async def again(self, ev: StepFailedEvent) -> Go:
        return Go()


def test_a_recovery_that_leads_to_a_list_keeps_its_budget():
    async def go():
        workflow = Endless(disable_validation=True)
        with pytest.raises(LookupError):
            await workflow.run()
        return workflow.joined

    assert run(go()) == 2


class Nested(Workflow):
    @step
    async def outer(self, ev: StartEvent) -> list[Go]:
        return [Go(size=n) for n in ev.sizes]

    @step
    async def inner(self, ev: Go) -> list[Item]:
        return [Item(number=n) for n in range(ev.size)]

    @step
    async def sum_up(self, events: list[Item]) -> Done:
        return Done(number=sum(e.number for e in events))

    @step
    async def join(self, events: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


@pytest.mark.parametrize("sizes", [[], [0], [3, 0, 5]])
def test_a_list_within_a_list_is_joined_at_its_own_level(sizes):
    async def go():
        return await Nested().run(sizes=sizes)

    assert run(go()) == sorted(sum(range(n)) for n in sizes)


class First(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=1)
    async def work(self, ev: Item) -> Done:
        return Done(number=ev.number)

    @step
    async def join(self, events: Annotated[list[Done], Collect(Take(2))]) -> StopEvent:
        return StopEvent(result=[e.number for e in events])


@pytest.mark.parametrize(("count", "taken"), [(0, []), (1, [0]), (5, [0, 1])])
def test_take_calls_with_the_first_ones_or_with_what_there_is(count, taken):
    async def go():
        return await First().run(count=count)

    assert run(go()) == taken


def test_a_step_that_takes_a_list_cannot_be_sent_to():
    async def go():
        handler = First().run(count=1)
        with pytest.raises(WorkflowRuntimeError, match="takes a list"):
            await handler.send_event(Done(number=1), step="join")
        return await handler

    assert run(go()) == [0]


def test_deprecated_ways_to_ask_a_handler_still_answer():
    async def go():
        handler = Chain().run(start=1)
        with pytest.deprecated_call():
            assert not handler.done()
        await handler
        with pytest.deprecated_call():
            assert handler.exception() is None
        with pytest.deprecated_call():
            assert not handler.cancelled()
        with pytest.deprecated_call():
            assert not handler.cancel()

    run(go())


class Counted(Workflow):
    running = 0
    most = 0
    order = ()

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order += (ev.number,)
        await asyncio.sleep(0.002)
        self.running -= 1
        return StopEvent(result=ev.number)


def test_no_more_runs_go_on_at_once_than_num_concurrent_runs_and_they_keep_their_order():
    async def go():
        workflow = Counted(num_concurrent_runs=2)
        handlers = [workflow.run(number=n) for n in range(7)]
        await asyncio.sleep(0)
        await handlers[4].cancel_run()
        results = await asyncio.gather(*handlers, return_exceptions=True)
        again = await workflow.run(number=9)
        return workflow.most, workflow.order, type(results[4]), again

    assert run(go()) == (2, (0, 1, 2, 3, 5, 6, 9), WorkflowCancelledByUser, 9)


def test_num_concurrent_runs_holds_for_durable_runs_and_over_event_loops():
    workflow = Counted(num_concurrent_runs=1)

    async def go():
        workflow.running = 0  # of what the loop before left behind
        store = MemoryStore()
        handlers = [workflow.run(number=n, run_id=f"run-{n}", store=store) for n in range(3)]
        await asyncio.gather(*handlers)
        abandoned = workflow.run(number=3)
        await asyncio.sleep(0)
        return workflow.most, abandoned.is_done()

    assert run(go()) == (1, False)
    assert run(go()) == (1, False)


def test_the_test_runner_collects_the_stream_and_counts_it():
    async def go():
        shown = await WorkflowTestRunner(Sync()).run()
        bare = await WorkflowTestRunner(Sync()).run(expose_internal=False, exclude_events=[Item])
        return shown, bare

    shown, bare = asyncio.run(go())
    assert shown.event_types == {StepStateChanged: 2, Item: 1, StopEvent: 1}
    assert [type(e) for e in bare.collected] == [StopEvent]
    assert bare.result is True


def test_a_run_id_that_is_active_is_refused_and_free_again_after_the_run():
    async def go():
        workflow = Chain()
        first = workflow.run(run_id="one", start=3)
        with pytest.raises(RuntimeError, match="one"):
            workflow.run(run_id="one", start=3)
        await first
        return await workflow.run(run_id="one", start=3)

    assert run(go()) == "landed"
    assert run(go()) == "landed"


@pytest.mark.parametrize("number", [0, 2])
def test_a_failed_step_that_took_a_list_is_recovered_with_the_whole_of_it(number):
    class Fails(Workflow):
        @step
        async def part(self, ev: StartEvent) -> list[Item]:
            return [Item(number=n) for n in range(number)]

        @step
        async def join(self, events: list[Item]) -> StopEvent:
            raise ValueError(len(events))

        @catch_error
        async def recover(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=[item.number for item in ev.input_event.events])

    async def go():
        return await Fails(timeout=2).run()

    assert run(go()) == list(range(number))
