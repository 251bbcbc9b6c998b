"""Child workflows: a step runs one, in memory, or durable as a part of its parent's log."""

import asyncio
import json
import logging
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killable import Killed, Log, open_run, plain, to_end
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.context import PickleSerializer
from perdure.durable import fold
from perdure.engine import children
from perdure.engine.model import ChildCommit, Due, Failed
from perdure.errors import (
    IncompatibleError,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
)
from perdure.events import Event, InputRequiredEvent, StartEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from perdure.store.memory import MemoryStore
from perdure.store.records import Record

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran():
    ran.clear()


def log_of(**fields) -> Log:
    """The log of a run with this input."""
    log = Log()
    log.records = [Record(0, 1, json.dumps({"input": fields}).encode())]
    return log


def in_memory(workflow, **fields):
    """The result of a run in memory."""

    async def go():
        return await workflow.run(**fields)

    return run(go())


class Half(Event):
    name: str


class Said(Event):
    text: str


class Answer(Event):
    text: str


class Child(Workflow):
    """Two steps, each noted when it runs."""

    @step
    async def one(self, ctx: Context, ev: StartEvent) -> Half:
        ran.append(f"{ev.name}.one")
        await ctx.store.set("seen", [ev.name])
        ctx.write_event_to_stream(Said(text=f"{ev.name} has begun"))
        return Half(name=ev.name)

    @step
    async def two(self, ctx: Context, ev: Half) -> StopEvent:
        ran.append(f"{ev.name}.two")
        await ctx.store.set("seen", [(await ctx.store.get("seen"))[0], "two"])
        ctx.write_event_to_stream(Said(text=f"{ev.name} ends"))
        return StopEvent(result=[*await ctx.store.get("seen"), ev.name])


class Parent(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ran.append("work")
        first = Child().run(name="a")
        async for said in first.stream_events():
            if isinstance(said, Said):
                ctx.write_event_to_stream(said)
        second = await asyncio.gather(Child().run(name="b"), Child().run(name="c"))
        return StopEvent(result=[await first, *second])


RESULT = [["a", "two", "a"], ["b", "two", "b"], ["c", "two", "c"]]


def test_a_step_runs_child_workflows_in_memory():
    assert in_memory(Parent()) == RESULT


def counts() -> dict[str, int]:
    return {name: ran.count(name) for name in dict.fromkeys(ran)}


KILLS = st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6)


@settings(max_examples=60, deadline=None)
@given(kills=KILLS, snapshots=st.booleans(), often=st.booleans())
def test_whatever_is_killed_children_go_on_where_they_were(kills, snapshots, often):
    ran.clear()

    async def go():
        log = Log(snapshots=snapshots)
        floor, children.SNAPSHOT_FLOOR = children.SNAPSHOT_FLOOR, 0 if often else children.SNAPSHOT_FLOOR
        try:
            return await to_end(Parent(), log, kills), log
        finally:
            children.SNAPSHOT_FLOOR = floor

    outcome, log = asyncio.run(go())
    assert outcome["result"] == RESULT
    # What the parent passed on of its child's stream is published once, in whatever process it read it.
    assert [json.loads(data)["value"]["text"] for data in log.published] == ["a has begun", "a ends"]


def test_a_step_that_a_child_committed_does_not_run_again():
    class Waits(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> Half:
            ran.append("one")
            await ctx.store.set("kept", 7)
            return Half(name="x")

        @step
        async def two(self, ctx: Context, ev: Half) -> StopEvent:
            ran.append("two")
            if counts()["two"] == 1:
                await asyncio.sleep(60)
            return StopEvent(result=[await ctx.store.get("kept"), ctx.idempotency_key])

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Waits().run())

    async def go():
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        return (await open_run(Runs(), log).result).result

    kept, key = run(go())
    assert (kept, counts()) == (7, {"one": 1, "two": 2})
    assert key.startswith("r:1.0/Waits-") and key.endswith(":2")


def test_children_that_began_in_another_order_are_found_again_by_their_input():
    class Slow(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("mine", ev.name)
            if counts()["work"] == 1:
                await asyncio.sleep(60)
            return StopEvent(result=[ev.name, await ctx.store.get("mine")])

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            ran.append("work")
            names = ["a", "b", "c"] if counts()["work"] == 1 else ["c", "b", "a"]
            return StopEvent(result=await asyncio.gather(*(Slow().run(name=name) for name in names)))

    async def go():
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        second = open_run(Runs(), log)
        result = (await second.result).result
        state, _ = fold(Runs(), Runs()._codec(Runs().serializer), None, log.records[:-1])
        return result, list(next(iter(state.works.values())).children)

    result, found = run(go())
    assert result == [["c", "c"], ["b", "b"], ["a", "a"]]
    assert len(found) == 3, "a child began anew beside what it had left"


def test_a_name_finds_a_child_whose_input_differs_and_without_one_that_is_told(caplog):
    class Runs(Workflow):
        name: ClassVar[str | None]

        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            ran.append("work")
            child = Child().run(name=f"try{len(ran)}", run_id=self.name)
            result = await child
            if ran.count("work") == 1:
                await asyncio.sleep(60)
            return StopEvent(result=result[0])

    async def go(name):
        ran.clear()
        caplog.clear()
        Runs.name = name
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        return (await open_run(Runs(), log).result).result

    assert run(go("mine")) == "try1"
    assert "none of those before" not in caplog.text
    assert run(go(None)) != "try1"
    assert "none of those before" in caplog.text


class Broken(Exception):
    pass


class Fails(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        ran.append("fails")
        raise Broken("so it is")


class Catches(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        try:
            await Fails().run()
        except Exception as error:
            caught = [type(error).__name__, str(error)]
        if ev.stay and not await ctx.store.get("stayed", False):
            await ctx.store.set("stayed", True)
            await asyncio.sleep(60)
        return StopEvent(result=caught)


def test_a_child_that_fails_raises_in_its_parents_step_what_it_raised():
    assert in_memory(Catches(), stay=False) == ["Broken", "so it is"]


def test_a_childs_failure_is_recorded_and_raised_again_by_a_step_that_is_run_again():
    async def go():
        log = log_of(stay=True)
        first = open_run(Catches(), log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        return (await open_run(Catches(), log).result).result

    assert run(go()) == ["Broken", "so it is"]
    assert ran == ["fails"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_failed_child_fails_its_parent_and_a_retry_of_the_step_begins_it_anew(durable):
    class Retries(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Fails().run(run_id="one"))

    async def go():
        with pytest.raises(Broken):
            await (open_run(Retries(), Log()).result if durable else Retries().run())

    run(go())
    assert ran == ["fails"] * 3


def test_a_run_that_failed_of_its_child_is_reopened_at_the_childs_failed_step():
    class Inner(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Half:
            ran.append("one")
            return Half(name="x")

        @step
        async def two(self, ev: Half) -> StopEvent:
            ran.append("two")
            if ran.count("two") == 1:
                raise Broken
            return StopEvent(result="mended")

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await Child().run(name="a")
            return StopEvent(result=await Inner().run())

    async def go():
        log = Log()
        with pytest.raises(Broken):
            await open_run(Runs(), log).result
        return (await open_run(Runs(), log).result).result

    assert run(go()) == "mended"
    assert ran == ["a.one", "a.two", "one", "two", "two"]


class Endless(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ran.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ran.append("cancelled")
            raise
        return StopEvent()


class Go(Event):
    pass


class RunsEndless(Workflow):
    """Its step runs a child that runs a child, and stays, returns, or leaves the end to another step."""

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> Go | StopEvent:
        child = Nests(timeout=None).run()
        while "begun" not in ran:
            await asyncio.sleep(0)
        if ev.how == "return":
            return StopEvent()
        if ev.how == "other":
            ctx.send_event(Go())
        if ev.how == "raise":
            raise Broken
        return StopEvent(result=await child)

    @step
    async def end(self, ev: Go) -> StopEvent:
        return StopEvent(result="ended by another step")


class Nests(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await Endless(timeout=None).run())


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("how", ["return", "other", "raise", "cancel", "timeout"])
def test_the_end_of_a_parent_or_of_its_step_cancels_its_children(how, durable):
    async def go():
        before = asyncio.all_tasks()
        workflow = RunsEndless(timeout=0.05 if how == "timeout" else None)
        if durable:
            parent = open_run(workflow, log_of(how=how), timeout=workflow.timeout)
        else:
            parent = workflow.run(how=how)._run
        if how == "cancel":
            while "begun" not in ran:
                await asyncio.sleep(0)
            parent.cancel()
        await asyncio.wait([parent.result])
        await asyncio.sleep(0.01)  # the step's end is not the run's: its children end beside what follows
        assert asyncio.all_tasks() == before
        return parent.result.exception()

    error = run(go())
    assert ran == ["begun", "cancelled"]
    expected = {"raise": Broken, "cancel": WorkflowCancelledByUser, "timeout": WorkflowTimeoutError}
    assert isinstance(error, expected.get(how, type(None)))


def test_a_runs_end_waits_for_what_its_children_still_tidy_up():
    class Tidies(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                ran.append("tidied")
            return StopEvent()

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Tidies().run())

    async def go():
        handler = Runs().run()
        await asyncio.sleep(0.02)
        await handler.cancel_run()
        return list(ran)

    assert run(go()) == ["tidied"]


def test_a_step_that_is_left_at_its_commit_by_a_drain_leaves_no_child_running():
    class Runs(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            Endless().run()
            while True:
                await asyncio.sleep(0.01)
                await ctx.store.set("alive", True)

    async def go():
        before = asyncio.all_tasks()
        parent = open_run(Runs(), Log())
        while "begun" not in ran:
            await asyncio.sleep(0)
        await parent.loop.drain(10)
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before

    run(go())
    assert ran == ["begun", "cancelled"]


def test_a_step_that_returns_without_its_child_says_so(caplog):
    in_memory(RunsEndless(timeout=None), how="return")
    assert "step work ended with child workflows still running" in caplog.text


class Asks(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await ctx.wait_for_event(Answer)
        second = await ctx.wait_for_event(Answer)
        return StopEvent(result=[first.text, second.text])


class Answers(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        child = Asks(disable_validation=True).run()
        for text in "yes", "no":
            await child.send_event(Answer(text=text))
            await ctx.store.set("sent", text)
        return StopEvent(result=await child)


@settings(max_examples=40, deadline=None)
@given(kills=KILLS)
def test_what_a_step_sends_its_child_is_not_sent_again_after_a_crash(kills):
    async def go():
        return await to_end(Answers(), Log(), kills)

    assert asyncio.run(go())["result"] == ["yes", "no"]


class Question(InputRequiredEvent):
    number: int


class AsksTwice(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        texts = []
        for number in range(2):
            answer = await ctx.wait_for_event(Answer, waiter_event=Question(number=number))
            texts.append(answer.text)
        return StopEvent(result=texts)


class PassesOn(Workflow):
    """Asks outside what its child asks, and tells its child what it was told."""

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        child = AsksTwice(disable_validation=True).run()
        async for event in child.stream_events():
            if isinstance(event, Question):
                await child.send_event(await ctx.wait_for_event(Answer, waiter_event=event))
        return StopEvent(result=await child)


@settings(max_examples=60, deadline=None)
@given(kills=KILLS, snapshots=st.booleans())
def test_a_question_of_a_child_is_asked_and_answered_once_whatever_is_killed(kills, snapshots):
    async def go():
        log = Log(snapshots=snapshots)
        for count, stored in [*kills, (10**9, True)]:
            if log.outcome is not None:
                break
            log.kill_at, log.stored = log.commits + count, stored
            taken = open_run(PassesOn(disable_validation=True), log)
            while not taken.result.done():
                # A person answers what is shown to be open.
                if taken.loop.rests and any(queue.waiting for queue in taken.loop.state.steps.values()):
                    taken.send_from_outside(Answer(text=f"{len(log.published)}"), None)
                await asyncio.sleep(0)
        return json.loads(log.outcome), log

    outcome, log = run(go())
    assert outcome["reason"] == "Completed"
    assert [json.loads(data)["value"]["number"] for data in log.published] == [0, 1]
    assert outcome["result"] == ["1", "2"]


def test_a_childs_retry_keeps_its_attempts_and_its_delay_over_a_crash():
    class Retries(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(30), stop=stop_after_attempt(3)))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ran.append(f"try{ctx.attempt}")
            if ctx.attempt == 1:
                return StopEvent(result=repr(ctx.retry_info().last_exception))
            raise ValueError("no")

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Retries().run())

    async def go():
        log, times = Log(), [1000.0]
        for wait in 29, 2:
            taken = open_run(Runs(), log, now=lambda: times[0])
            await asyncio.sleep(0.03)
            assert ran == ["try0"]
            taken.loop.stop(None, Killed())
            times[0] += wait
        return (await open_run(Runs(), log, now=lambda: times[0]).result).result

    assert run(go()) == "ValueError('no')"
    assert ran == ["try0", "try1"]


def test_nothing_of_a_child_shows_before_it_is_durable_in_its_parent():
    async def go():
        log = Log()
        log.hold_after = 1  # the parent's beginning is durable, its child's not
        parent = open_run(Parent(), log)
        await asyncio.sleep(0.03)
        before = list(ran)
        log.release.set()
        await parent.result
        return before

    assert run(go()) == ["work"]


def test_parent_and_children_share_one_log_and_a_snapshot_is_its_fold():
    async def go():
        log = Log(snapshots=True, cuts=False)
        await to_end(Parent(), log, [(5, True), (4, False)])
        codec = Parent()._codec(Parent().serializer)
        kinds = set()
        for records, snapshot in log.taken:
            state, _ = fold(Parent(), codec, None, log.records[:records])
            assert plain(state) == plain(codec.decode_state(snapshot))
            kinds |= {len(work.children or ()) for work in state.works.values()}
        ticks = [t for record in log.records[1:] for t in codec.decode_ticks(record.payload)]
        assert sum(isinstance(tick, ChildCommit) for tick in ticks) > 6
        return kinds

    assert {0, 1, 3} <= run(go())


def test_a_childs_log_in_its_parents_state_stays_in_proportion_to_what_it_stands_for():
    class Busy(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(300):
                await ctx.store.set("last", f"{n:>200}")
            return StopEvent(result=n)

    class Runs(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Busy().run())

    async def go():
        log = Log()
        await open_run(Runs(), log).result
        state, _ = fold(Runs(), Runs()._codec(Runs().serializer), None, log.records[:-1])
        (child,) = next(iter(state.works.values())).children.values()
        return sum(len(record.payload) for record in log.records), sum(len(r) for r in child.records)

    written, kept = run(go())
    assert written > 300 * 200
    assert kept < 2 * children.SNAPSHOT_FLOOR


def test_a_state_without_children_is_read_by_versions_that_know_none():
    async def go(workflow):
        log = log_of(name="a")
        log.wants_snapshot = True
        await open_run(workflow, log).result
        return [workflow._codec(workflow.serializer).decode_state(data).format for _, data in log.taken]

    assert set(run(go(Child()))) == {1}
    assert run(go(Parent()))[-1] == 2


def test_a_childs_code_that_does_not_fit_its_log_ends_no_run():
    class Inner(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(60)
            return StopEvent()

    old = Inner

    class Inner(Workflow):  # type: ignore[no-redef]
        @step
        async def another(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    class Middle(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await inner().run())

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Middle().run())

    async def go():
        nonlocal inner
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.03)
        first.loop.stop(None, Killed())
        inner = Inner
        with pytest.raises(IncompatibleError, match="one is gone"):
            await open_run(Runs(), log).result
        return log.outcome

    inner = old
    assert run(go()) is None


def test_a_drained_parent_lets_its_childs_steps_reach_a_commit_and_starts_no_more():
    class Steps(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> Half:
            await reached.wait()
            ran.append("one")
            return Half(name="x")

        @step
        async def two(self, ev: Half) -> StopEvent:
            ran.append("two")
            return StopEvent(result="done")

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            ran.append("work")
            return StopEvent(result=await Steps().run())

    async def go():
        nonlocal reached
        reached = asyncio.Event()
        log = Log()
        parent = open_run(Runs(), log)
        await asyncio.sleep(0.02)
        drain = asyncio.ensure_future(parent.loop.drain(10))
        await asyncio.sleep(0.02)
        assert not drain.done()
        reached.set()
        await asyncio.wait_for(drain, 5)
        assert ran == ["work", "one"]
        assert log.outcome is None
        return (await open_run(Runs(), log).result).result

    reached: asyncio.Event
    assert run(go()) == "done"
    assert ran == ["work", "one", "work", "two"]


def test_a_child_that_is_to_begin_in_a_drained_run_is_left_to_the_successor():
    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await reached.wait()
            return StopEvent(result=await Child().run(name="a"))

    async def go():
        nonlocal reached
        reached = asyncio.Event()
        log = Log()
        parent = open_run(Runs(), log)
        await asyncio.sleep(0.02)
        drain = asyncio.ensure_future(parent.loop.drain(10))
        await asyncio.sleep(0.02)
        reached.set()
        await asyncio.wait_for(drain, 5)
        assert ran == []
        return (await open_run(Runs(), log).result).result

    reached: asyncio.Event
    assert run(go()) == RESULT[0]


def test_a_child_goes_on_with_a_context_that_it_is_given_and_keeps_it_over_a_crash():
    class Counts(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ran.append("count")
            await ctx.store.set("first", await ctx.store.get("first", len(ran)))
            await ctx.store.set("n", await ctx.store.get("n", 0) + 1)
            if len(ran) == 2:
                await asyncio.sleep(60)
            return StopEvent(result=[await ctx.store.get("first"), await ctx.store.get("n")])

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            first = Counts().run()
            await first
            return StopEvent(result=await Counts().run(ctx=first.ctx, run_id="second"))

    async def go():
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        return (await open_run(Runs(), log).result).result

    # The first ran once; the second had made it 2, was cut off, and is run again.
    assert run(go()) == [1, 3]
    assert len(ran) == 3


def test_with_a_store_it_is_a_run_of_its_own_that_its_parents_end_leaves_alone():
    class Slow(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            ran.append("begun")
            await release.wait()
            return StopEvent(result="by itself")

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            handlers.append(Slow().run(store=store, run_id="own"))
            while not ran:
                await asyncio.sleep(0.001)
            return StopEvent()

    async def go():
        nonlocal release
        release = asyncio.Event()
        await Runs().run()
        assert not handlers[0].is_done()
        release.set()
        return await handlers[0]

    release: asyncio.Event
    store, handlers = MemoryStore(), []
    assert run(go()) == "by itself"


def test_a_name_given_twice_and_a_step_that_has_ended_are_refused():
    class Twice(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await Child().run(name="a", run_id="one")
            with pytest.raises(RuntimeError, match="'one' already"):
                Child().run(name="b", run_id="one")
            with pytest.raises(ValueError, match="run_id"):
                Child().run(name="b", run_id="no/name")
            tasks.append(asyncio.create_task(later()))
            return StopEvent()

    async def later():
        await asyncio.sleep(0.01)
        Child().run(name="c")

    async def go():
        await Twice().run()
        with pytest.raises(WorkflowRuntimeError, match="step work has ended"):
            await tasks[0]

    tasks: list = []
    run(go())


def test_a_step_in_a_thread_may_run_a_workflow_in_a_loop_of_its_own_unless_that_had_to_be_durable():
    class Threaded(Workflow):
        @step
        def work(self, ev: StartEvent) -> StopEvent:
            async def inside():
                return await Child().run(name="a")

            return StopEvent(result=asyncio.run(inside()))

    async def go():
        assert await Threaded().run() == ["a", "two", "a"]
        with pytest.raises(WorkflowRuntimeError, match="make the step async"):
            await open_run(Threaded(), Log()).result

    asyncio.run(go())


def test_num_concurrent_runs_holds_for_children_and_a_send_before_their_turn_waits():
    class One(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ran.append(f"+{ev.name}")
            answer = await ctx.wait_for_event(Answer)
            ran.append(f"-{ev.name}")
            return StopEvent(result=answer.text)

    one = One(num_concurrent_runs=1, disable_validation=True)

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            handlers = [one.run(name=name) for name in "ab"]
            if ev.get("late", False):
                await asyncio.sleep(0.02)
            for text, handler in zip("xy", handlers, strict=True):
                await handler.send_event(Answer(text=text))
            return StopEvent(result=await asyncio.gather(*handlers))

    async def go():
        for late in False, True:
            for durable in False, True:
                ran.clear()
                parent = open_run(Runs(), log_of(late=late)) if durable else Runs().run(late=late)._run
                assert (await parent.result).result == ["x", "y"]
                assert ran == ["+a", "-a", "+b", "-b"]

    run(go())


def test_a_send_to_a_child_that_waits_for_its_turn_to_be_taken_up_again_starts_no_step_twice():
    class Parts(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Go | None:
            return None

        @step
        async def part(self, ctx: Context, ev: Answer) -> StopEvent:
            ran.append(ev.text)
            await asyncio.sleep(0.02 if ev.text == "a" else 0.06)
            return StopEvent(result=ev.text)

        @step
        async def never(self, ev: Go) -> StopEvent:
            return StopEvent()

    class Runs(Workflow):
        limit: ClassVar[int] = 2
        send: ClassVar[bool] = False

        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            limited = Parts(num_concurrent_runs=self.limit, disable_validation=True)
            handlers = [limited.run(name=name) for name in "ab"]
            if self.send:
                for name, handler in zip("ab", handlers, strict=True):
                    await handler.send_event(Answer(text=name))
            return StopEvent(result=[await handler for handler in handlers])

    async def go():
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.02)
        first.loop.stop(None, Killed())
        Runs.limit, Runs.send = 1, True
        return (await open_run(Runs(), log).result).result

    assert run(go()) == ["a", "b"]
    assert ran == ["a", "b"]


def test_a_childs_progress_is_its_parents_so_it_is_not_stuck():
    async def go():
        log = Log()
        await open_run(Parent(), log).result
        return log.flight

    assert ("=", "1", "") in run(go())


def test_a_run_whose_children_all_wait_says_that_it_waits():
    class Waits(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            await asyncio.sleep(60)
            return StopEvent()

    class Middle(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            handlers.append(Waits(disable_validation=True).run())
            return StopEvent(result=await handlers[-1])

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await asyncio.gather(Middle().run(), Middle().run()))

    async def go():
        log = Log()
        taken = open_run(Runs(), log)
        while not json.loads(log.summary).get("waiting"):
            await asyncio.sleep(0)
        await handlers[0].send_event(Answer(text="go on"))
        while json.loads(log.summary)["waiting"]:
            await asyncio.sleep(0)
        taken.loop.stop(None, Killed())
        return len(handlers)

    handlers: list = []
    assert run(go()) == 2


def in_flight(log: Log) -> dict[str, str]:
    """As the store keeps it."""
    found: dict[str, str] = {}
    for sign, name, step_name in log.flight:
        if sign == "+":
            found[name] = step_name
        elif sign == "-":
            found.pop(name, None)
    return found


def test_a_childs_invocations_are_in_flight_one_by_one_however_deep_and_leave_with_it():
    class Inner(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Half:
            return Half(name="x")

        @step
        async def poison(self, ev: Half) -> StopEvent:
            await asyncio.sleep(60 if Runs.stays else 0)
            return StopEvent()

    class Middle(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Inner().run(run_id="inner"))

    class Runs(Workflow):
        stays = True

        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2)))
        async def work(self, ctx: Context, ev: StartEvent) -> Go:
            if Runs.life < 3:
                await Middle().run(run_id=f"middle{Runs.life}")
            elif not ctx.attempt:
                Middle().run(run_id="middle3")
                await asyncio.sleep(0.02)
                raise Broken
            return Go()

        @step
        async def end(self, ev: Go) -> StopEvent:
            seen.append(in_flight(log))
            return StopEvent()

    async def go():
        for Runs.life in 1, 2:
            parent = open_run(Runs(), log)
            await asyncio.sleep(0.03)
            seen.append(in_flight(log))
            parent.loop.stop(None, Killed())
        Runs.life = 3
        await open_run(Runs(), log).result

    seen: list = []
    log = Log()
    run(go())
    first = {"1": "work", "1.middle1.1": "middle1.work", "1.middle1.1.inner.2": "middle1.inner.poison"}
    assert seen[0] == first
    # What another way left behind stays a suspect for as long as its step does, and no longer.
    second = {"1.middle2.1": "middle2.work", "1.middle2.1.inner.2": "middle2.inner.poison"}
    assert seen[1] == first | second
    assert seen[2] == {"2": "end"}


def test_a_child_that_has_ended_has_nothing_in_flight():
    class Ends(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
            return StopEvent()

        @step
        async def other(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(60)
            return StopEvent()

    class Runs(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await Ends().run()
            await ctx.checkpoint()
            return StopEvent(result=in_flight(log))

    async def go():
        return (await open_run(Runs(), log).result).result

    log = Log()
    assert run(go()) == {"1": "work"}


def test_a_relaxed_child_is_at_risk_within_its_parents_bound_and_a_checkpoint_of_it_is_not():
    class Writes(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("n", 1)
            ran.append("risked")
            await ctx.checkpoint()
            ran.append("safe")
            return StopEvent()

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            await Writes().run()
            return StopEvent()

    async def go():
        log = Log()
        log.hold_after = 0
        parent = open_run(Runs(), log, relaxed=True)
        await asyncio.sleep(0.05)
        before = list(ran)
        log.release.set()
        await parent.result
        return before

    assert run(go()) == ["risked"]
    assert ran == ["risked", "safe"]


def test_what_a_relaxed_child_publishes_is_durable_before_it_is_seen():
    class Publishes(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Said(text="x"))
            await asyncio.sleep(60)
            return StopEvent()

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            async for said in Publishes().run().stream_events():
                ran.append(said.text)
                break
            return StopEvent()

    async def go():
        log = Log()
        log.hold_after = 0
        parent = open_run(Runs(), log, relaxed=True)
        await asyncio.sleep(0.05)
        before = list(ran)
        log.release.set()
        await parent.result
        return before

    assert run(go()) == []
    assert ran == ["x"]


@settings(max_examples=40, deadline=None)
@given(turns=st.integers(0, 30))
def test_a_retry_finds_nothing_of_the_child_of_the_try_before(turns):
    class Busy(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            found = await ctx.store.get("n", 0)
            for n in range(4):
                await ctx.store.set("n", n + 1)
            return StopEvent(result=found)

    class Runs(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2)))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            child = Busy().run()
            if not ctx.attempt:
                for _ in range(turns):
                    await asyncio.sleep(0)
                raise Broken
            return StopEvent(result=await child)

    async def go():
        log = Log()
        parent = open_run(Runs(), log)
        found = (await parent.result).result
        fold(Runs(), Runs()._codec(Runs().serializer), None, log.records)
        codec = Runs()._codec(Runs().serializer)
        ticks = [t for record in log.records[1:] for t in codec.decode_ticks(record.payload)]
        failed = next(n for n, tick in enumerate(ticks) if isinstance(tick, Failed))
        due = next(n for n, tick in enumerate(ticks) if isinstance(tick, Due))
        return found, [tick for tick in ticks[failed:due] if isinstance(tick, ChildCommit)]

    assert run(go()) == (0, [])


def test_a_late_word_of_an_ended_steps_child_does_not_reach_the_log(caplog):
    class Zombie(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                with pytest.raises(WorkflowRuntimeError, match="after it had ended"):
                    await ctx.store.set("late", 1)
                ran.append("late")
            return StopEvent(result="late")

    class Runs(Workflow):
        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(2)))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if ctx.attempt:
                await asyncio.sleep(0.05)
                return StopEvent(result="again")
            Zombie().run()
            await asyncio.sleep(0.02)
            raise Broken

    async def go():
        log = Log()
        result = (await open_run(Runs(), log).result).result
        state, _ = fold(Runs(), Runs()._codec(Runs().serializer), None, log.records[:-1])
        return result, next(iter(state.works.values())).children

    caplog.set_level(logging.WARNING)
    assert run(go()) == ("again", None)
    assert ran == ["late"]


def test_a_child_of_a_run_that_pickles_pickles():
    class Sets(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> Half:
            await ctx.store.set("kept", {1, 2})
            return Half(name="x")

        @step
        async def two(self, ctx: Context, ev: Half) -> StopEvent:
            ran.append("two")
            if ran.count("two") == 1:
                await asyncio.sleep(60)
            return StopEvent(result=await ctx.store.get("kept"))

    class Runs(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=len(await Sets().run()))

    async def go():
        log = Log()
        workflow = Runs(serializer=PickleSerializer())
        first = open_run(workflow, log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        return (await open_run(workflow, log).result).result

    assert run(go()) == 2
    assert ran == ["two", "two"]


def test_of_what_a_child_published_no_more_is_kept_than_a_stream_keeps_unread(monkeypatch):
    monkeypatch.setattr("perdure.engine.reduce.MAX_SHOWN", 3)

    class Talks(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(10):
                ctx.write_event_to_stream(Said(text=f"{n}"))
            return StopEvent()

    class Runs(Workflow):
        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            ran.append("work")
            child = Talks().run()
            await child
            if ran == ["work"]:
                await asyncio.sleep(60)
            return StopEvent(result=[s.text async for s in child.stream_events() if isinstance(s, Said)])

    async def go():
        log = Log()
        first = open_run(Runs(), log)
        await asyncio.sleep(0.05)
        first.loop.stop(None, Killed())
        return (await open_run(Runs(), log).result).result

    assert run(go()) == ["7", "8", "9"]
