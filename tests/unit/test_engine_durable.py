"""The engine with a journal: nothing shows before it is durable, and a successor goes on from the log."""

import asyncio
import json
from typing import ClassVar

import pytest
import virtual_time
from hypothesis import given, settings
from hypothesis import strategies as st
from killable import Killed, Log, open_run, plain, to_end

from perdure import Context, Workflow, step
from perdure.context import PickleSerializer
from perdure.durable import DurableRun, fold
from perdure.engine.committer import RELAXED_SECONDS, RELAXED_TICKS
from perdure.engine.gate import Gate
from perdure.engine.journal import Batch
from perdure.engine.model import State
from perdure.errors import IncompatibleError
from perdure.events import Event, StartEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from perdure.store.memory import MemoryStore
from perdure.store.records import Record, input_record
from perdure.store.session import RunSession


async def turns():
    for _ in range(30):
        await asyncio.sleep(0)


class Item(Event):
    number: int


class Done(Event):
    number: int


class Answer(Event):
    number: int


class Paired(Event):
    number: int


class Levelled(Event):
    number: int


class Crunch(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Item]:
        await ctx.store.set("seen", [])
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=3)
    async def work(self, ctx: Context, ev: Item) -> Done:
        seen = await ctx.store.get("seen")
        seen.append(ev.number)
        await ctx.store.set("seen", seen)
        await ctx.store.append("again", ev.number)
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        seen = await ctx.store.get("seen")
        return StopEvent(result=[sorted(e.number for e in events), sorted(set(seen))])


KILLS = st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6)


@settings(max_examples=60, deadline=None)
@given(kills=KILLS, snapshots=st.booleans())
def test_whatever_is_killed_the_result_is_that_of_an_uninterrupted_run(kills, snapshots):
    async def go():
        return await to_end(Crunch(), Log(snapshots=snapshots), kills)

    outcome = virtual_time.run(go())
    assert outcome["reason"] == "Completed"
    assert outcome["result"] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]


class Sender(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Item | None:
        for n in range(ev.count):
            ctx.send_event(Item(number=n))
            await ctx.store.set("sent", n)
        return None

    @step(num_workers=2)
    async def work(self, ev: Item) -> Done:
        return Done(number=ev.number)

    @step(num_workers=2)
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        found = ctx.collect_events(ev, [Done] * 6)
        await ctx.store.set("last", ev.number)
        if found is None:
            return None
        return StopEvent(result=sorted(e.number for e in found))


@settings(max_examples=60, deadline=None)
@given(kills=KILLS, snapshots=st.booleans())
def test_sends_and_collected_events_of_a_cut_off_step_are_neither_lost_nor_doubled(kills, snapshots):
    async def go():
        return await to_end(Sender(), Log(snapshots=snapshots), kills)

    outcome = virtual_time.run(go())
    assert outcome["result"] == [0, 1, 2, 3, 4, 5]


@settings(max_examples=20, deadline=None)
@given(kills=KILLS)
def test_a_snapshot_is_the_fold_of_the_log_before_it(kills):
    async def go():
        workflow, log = Crunch(), Log(snapshots=True, cuts=False)
        await to_end(workflow, log, kills)
        codec = workflow._codec(workflow.serializer)
        for records, snapshot in log.taken:
            state, _ = fold(workflow, codec, None, log.records[:records])
            assert plain(state) == plain(codec.decode_state(snapshot))
        return len(log.taken)

    assert virtual_time.run(go()) > 5


def test_no_event_reaches_another_step_before_the_tick_that_made_it_is_durable():
    reached = []

    class Watched(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Item:
            reached.append("first")
            return Item(number=1)

        @step
        async def second(self, ev: Item) -> StopEvent:
            reached.append("second")
            return StopEvent()

    async def go():
        log = Log()
        log.hold_after = 1  # the commit of what the first step returned
        run = open_run(Watched(), log)
        for _ in range(50):
            await asyncio.sleep(0)
        before = list(reached)
        log.release.set()
        await run.result
        return before

    assert virtual_time.run(go()) == ["first"]
    assert reached == ["first", "second"]


def test_a_state_write_is_durable_when_its_await_returns():
    class Writer(Workflow):
        @step
        async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("key", "value")
            log = self.log
            state, _ = fold(self, self._codec(self.serializer), log.snapshot, log.records)
            return StopEvent(result=[item.decode() for item in state.store["key"].items])

    async def go():
        workflow = Writer()
        workflow.log = Log()
        run = open_run(workflow, workflow.log)
        return (await run.result).result

    assert virtual_time.run(go()) == ['"value"']


def test_a_list_that_grew_is_written_as_its_new_items_and_one_changed_in_place_is_not_lost():
    class Writer(Workflow):
        @step
        async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
            docs = [{"name": "a", "status": "new"}]
            await ctx.store.set("docs", docs)
            docs = await ctx.store.get("docs")
            docs[0]["status"] = "done"
            docs.append({"name": "b", "status": "new"})
            await ctx.store.set("docs", docs)
            return StopEvent(result=None)

    async def go():
        workflow = Writer()
        log = Log(kill_at=4)
        run = open_run(workflow, log)
        with pytest.raises(Killed):
            await run.result
        state, _ = fold(workflow, workflow._codec(workflow.serializer), None, log.records)
        return [json.loads(item) for item in state.store["docs"].items]

    assert virtual_time.run(go()) == [{"name": "a", "status": "done"}, {"name": "b", "status": "new"}]


def test_bytes_in_the_log_for_a_growing_list_do_not_grow_with_it():
    class Writer(Workflow):
        @step
        async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
            done = []
            for n in range(ev.count):
                done.append(f"document {n:04}")
                await ctx.store.set("done", done)
            return StopEvent()

    async def go():
        log = Log()
        log.records[0] = Record(0, 1, json.dumps({"input": {"count": 200}}).encode())
        await open_run(Writer(), log).result
        return [len(record.payload) for record in log.records[3:-1]]

    sizes = virtual_time.run(go())
    assert max(sizes) <= min(sizes) + 8


def test_a_log_with_work_for_a_step_that_is_gone_is_incompatible_and_says_which():
    class Other(Workflow):
        @step
        async def elsewhere(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    async def go():
        log = Log(kill_at=2)
        with pytest.raises(Killed):
            await open_run(Crunch(), log).result
        with pytest.raises(IncompatibleError, match="split"):
            open_run(Other(), log)

    virtual_time.run(go())


def test_a_drained_run_stops_at_a_commit_and_its_successor_finishes():
    class Slow(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(50):
                await asyncio.sleep(0.002)
                if n not in await ctx.store.get("done", default=[]):
                    await ctx.store.append("done", n)
            return StopEvent(result=await ctx.store.get("done"))

    async def go():
        log, workflow = Log(), Slow()
        run = open_run(workflow, log)
        await asyncio.sleep(0.02)
        await asyncio.wait_for(run.loop.drain(5), 5)
        with pytest.raises(Exception, match="left in this process"):
            await run.result
        commits = log.commits
        again = open_run(workflow, log)
        return commits, (await again.result).result

    commits, done = virtual_time.run(go())
    assert commits < 50
    assert done == list(range(50))


@pytest.mark.parametrize("stopped_first", [False, True])
def test_a_run_that_ends_while_it_is_drained_keeps_nobody_waiting(stopped_first: bool):
    class Writes(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(1)
            try:
                await ctx.store.set("n", 1)
            finally:
                await asyncio.sleep(0.3)  # it takes its time to end
            return StopEvent()

    async def go():
        loop = asyncio.get_running_loop()
        run = open_run(Writes(), Log(kill_at=2))  # a fence answers so: nothing becomes durable any more
        await asyncio.sleep(1.1 if stopped_first else 0.5)
        if stopped_first:
            assert run.loop.stopped
        began = loop.time()
        await run.loop.drain(1000)
        with pytest.raises(Killed):
            await run.result
        return loop.time() - began

    assert virtual_time.run(go()) < 10


def test_the_state_of_a_fresh_run_is_empty():
    assert State().works == {}


def test_the_outcome_of_a_failed_run_has_the_steps_own_traceback_and_no_more():
    class Failing(Workflow):
        @step
        async def fail(self, ev: StartEvent) -> StopEvent:
            return self.deeper()

        def deeper(self) -> StopEvent:
            raise LookupError("x" * 20_000)

    async def go():
        log = Log()
        with pytest.raises(LookupError):
            await open_run(Failing(), log).result
        return json.loads(log.outcome)

    outcome = virtual_time.run(go())
    trace = outcome["failure"]["traceback"]
    assert outcome["reason"] == "StepFailed"
    assert outcome["failure"]["exceptionType"] == "builtins.LookupError"
    assert len(trace) <= 8000
    assert "in deeper" in trace
    assert "perdure/engine" not in trace


def test_the_time_that_no_process_ran_is_not_of_the_runs_timeout():
    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Item, timeout=None)).number)

    async def go():
        log, workflow, now = Log(), Asks(), 1000.0
        first = open_run(workflow, log, timeout=60.0, now=lambda: now)
        await asyncio.sleep(0.01)
        now += 20
        await first.loop.drain(1)
        now += 1000
        again = open_run(workflow, log, timeout=60.0, now=lambda: now)
        await asyncio.sleep(0.01)
        alive = again.loop.alive()
        again.send_from_outside(Item(number=3), None)
        return alive, (await again.result).result

    assert virtual_time.run(go()) == (20.0, 3)


def test_an_answer_that_a_step_gives_before_the_waiter_is_run_again_is_not_lost():
    class Asks(Workflow):
        entered = 0

        @step
        async def start(self, ctx: Context, ev: StartEvent) -> None:
            ctx.send_event(Done(number=1))
            ctx.send_event(Item(number=1))

        @step(num_workers=1)
        async def tell(self, ctx: Context, ev: Done) -> None:
            if self.entered:
                ctx.send_event(Answer(number=9))
            self.told = True
            await asyncio.sleep(60 if self.entered == 0 else 0)

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Item) -> StopEvent:
            self.entered += 1
            if self.entered == 2:
                await asyncio.sleep(0.01)  # the answer comes before the wait
            return StopEvent(result=(await ctx.wait_for_event(Answer)).number)

    async def go():
        log, workflow = Log(), Asks(disable_validation=True)
        run = open_run(workflow, log)
        await asyncio.sleep(0.02)
        run.loop.stop(None, Killed())
        with pytest.raises(Killed):
            await run.result
        again = open_run(workflow, log)
        return (await asyncio.wait_for(again.result, 5)).result

    workflow_result = virtual_time.run(go())
    assert workflow_result == 9


def test_a_retry_keeps_its_attempts_and_its_delay_over_a_crash_and_the_crash_is_no_attempt():
    class Fails(Workflow):
        seen: ClassVar[list] = []

        @step(retry_policy=retry_policy(wait=wait_fixed(30), stop=stop_after_attempt(3)))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            self.seen.append((ctx.attempt, info.retry_number, repr(info.last_exception)))
            if len(self.seen) == 2:
                await asyncio.sleep(60)
            if len(self.seen) == 4:
                return StopEvent()
            raise ValueError(f"no {len(self.seen)}")

    async def go():
        log, workflow, times = Log(), Fails(), [1000.0]
        Fails.seen.clear()

        async def run_and_kill() -> int:
            run = open_run(workflow, log, now=lambda: times[0])
            await asyncio.sleep(0.05)
            run.loop.stop(None, Killed())
            with pytest.raises(Killed):
                await run.result
            return len(Fails.seen)

        assert await run_and_kill() == 1
        times[0] += 29
        assert await run_and_kill() == 1  # the delay is not over
        times[0] += 2
        assert await run_and_kill() == 2  # killed in the second try
        assert await run_and_kill() == 3  # the second try again, which fails
        times[0] += 31
        await asyncio.wait_for(open_run(workflow, log, now=lambda: times[0]).result, 5)
        return Fails.seen

    seen = virtual_time.run(go())
    assert seen[0] == (0, 0, "None")
    assert seen[1] == (1, 1, "ValueError('no 1')")
    assert seen[2] == (1, 1, "ValueError('no 1')")


class Thing(Event):
    value: object


@pytest.mark.parametrize("how", ["return", "send", "publish", "state", "key", "result"])
def test_what_cannot_be_serialized_fails_the_step_not_the_process(how):
    class Gives(Workflow):
        @step
        async def give(self, ctx: Context, ev: StartEvent) -> Item | Thing | StopEvent:
            if how == "return":
                return Thing(value=object())
            if how == "send":
                ctx.send_event(Thing(value=object()))
            if how == "publish":
                ctx.write_event_to_stream(Thing(value=object()))
            if how == "state":
                await ctx.store.set("key", object())
            if how == "key":
                await ctx.store.set("k\udcff", 1)
            return StopEvent(result=object())

    async def go():
        log = Log()
        with pytest.raises(ValueError):
            await open_run(Gives(disable_validation=True), log).result
        return json.loads(log.outcome)

    outcome = virtual_time.run(go())
    assert outcome["reason"] == "StepFailed"
    assert outcome["failure"]["step"] == "give"


def test_a_failure_whose_message_is_no_text_is_recorded():
    class Fails(Workflow):
        @step
        async def fail(self, ev: StartEvent) -> StopEvent:
            raise FileNotFoundError("no file /tmp/\udcff" + "x" * 100_000)

    async def go():
        log = Log()
        with pytest.raises(FileNotFoundError):
            await open_run(Fails(), log).result
        return json.loads(log.outcome)

    outcome = virtual_time.run(go())
    assert outcome["reason"] == "StepFailed"
    assert outcome["failure"]["message"].startswith("no file /tmp/\\udcff")
    assert len(outcome["failure"]["message"]) <= 8000


def test_a_write_of_several_keys_of_which_one_is_refused_leaves_no_key_in_the_log():
    class Writes(Workflow):
        @step
        async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(ValueError):
                async with ctx.store.edit_state() as state:
                    state["a"] = 1
                    state["b"] = object()
            return StopEvent(result=[await ctx.store.get("a", default=None), list(ctx._run.loop.state.store)])

    async def go():
        return (await open_run(Writes(), Log()).result).result

    assert virtual_time.run(go()) == [None, []]


class Relaxed(Workflow):
    @step
    async def split(self, ctx: Context, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(500)]

    @step(num_workers=1)
    async def work(self, ev: Item) -> Done:
        self.done = getattr(self, "done", 0) + 1
        return Done(number=ev.number)

    @step
    async def join(self, events: list[Done]) -> StopEvent:
        return StopEvent(result=len(events))


def test_a_relaxed_run_delivers_ahead_of_its_store_up_to_the_bound_and_no_further():
    async def go():
        log, workflow = Log(), Relaxed()
        log.hold_after = 0
        run = open_run(workflow, log, relaxed=True)
        await asyncio.sleep(2 * RELAXED_SECONDS)
        at_risk = workflow.done
        await asyncio.sleep(RELAXED_SECONDS)
        later = workflow.done
        log.release.set()
        return at_risk, later, (await asyncio.wait_for(run.result, 20)).result

    at_risk, later, result = virtual_time.run(go())
    assert 1 < at_risk <= RELAXED_TICKS + 1
    assert later == at_risk
    assert result == 500


def test_a_relaxed_run_waits_longer_for_a_slow_store_rather_than_risk_more_time():
    async def go():
        log, workflow = Log(), Relaxed()
        log.hold_after = 0
        run = open_run(workflow, log, relaxed=True)
        await asyncio.sleep(0.03)
        committer = run.loop._committer
        committer._sent, committer._ticks = 1, []
        within = committer._within_risk()
        committer._first_sent -= RELAXED_SECONDS  # the store takes that long for what is on its way
        return within, committer._within_risk()

    assert virtual_time.run(go()) == (True, False)


def test_a_relaxed_run_waits_for_its_store_alone_and_commits_half_of_its_bound_at_a_time():
    async def go():
        log, loop = Log(), asyncio.get_running_loop()
        run = open_run(Relaxed(), log, relaxed=True)
        began = loop.time()
        result = (await run.result).result
        return result, log.commits, loop.time() - began

    result, commits, waited = virtual_time.run(go())
    assert result == 500
    assert commits <= 1.5 * 1002 / (RELAXED_TICKS / 2)
    assert waited <= RELAXED_SECONDS / 10, "the first or the last tick may wait for company, no other"


def test_a_checkpoint_of_a_relaxed_run_does_not_wait_for_company():
    class Checks(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            loop = asyncio.get_running_loop()
            await ctx.checkpoint()
            began = loop.time()
            for n in range(100):
                await ctx.store.set("n", n)
                await ctx.checkpoint()
            return StopEvent(result=loop.time() - began)

    async def go():
        return (await open_run(Checks(), Log(), relaxed=True).result).result

    assert virtual_time.run(go()) == 0


def test_published_events_waits_and_checkpoints_are_strict_in_a_relaxed_run():
    seen = []

    class Publishes(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("a", 1)
            seen.append("risked")
            await ctx.checkpoint()
            seen.append("durable")
            ctx.write_event_to_stream(Item(number=1))
            return StopEvent()

    async def go():
        log = Log()
        log.hold_after = 0
        run = open_run(Publishes(), log, relaxed=True)
        for _ in range(20):
            await asyncio.sleep(0.002)
        before = list(seen)
        log.release.set()
        await run.result
        return before, log.published

    before, published = virtual_time.run(go())
    assert before == ["risked"]
    assert len(published) == 1


def test_an_answer_that_is_not_durable_yet_is_not_given_along_with_one_that_is():
    seen = []

    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.gather(self.answer(ctx, 1), self.answer(ctx, 2))
            return StopEvent()

        async def answer(self, ctx: Context, number: int) -> None:
            await ctx.wait_for_event(Answer, requirements={"number": number}, timeout=None)
            seen.append(number)

    async def go():
        log = Log()
        run = open_run(Asks(), log)
        await turns()
        log.hold_after = log.commits + 1
        run.send_from_outside(Answer(number=1), None)
        await asyncio.sleep(0)  # its commit is on its way
        run.send_from_outside(Answer(number=2), None)
        await turns()
        before = list(seen)
        log.release.set()
        await run.result
        return before

    assert asyncio.run(go()) == [1]
    assert seen == [1, 2]


def test_an_event_from_outside_is_durable_before_a_step_of_a_relaxed_run_has_it_though_it_was_queued():
    seen = []

    class Asks(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(number=0), Item(number=1)]

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Item) -> Done:
            if ev.number:
                await free.wait()
            else:
                await ctx.wait_for_event(Answer, timeout=None)
                seen.append("answer")
            return Done(number=ev.number)

        @step
        async def join(self, events: list[Done]) -> StopEvent:
            return StopEvent()

    async def go():
        nonlocal free
        free = asyncio.Event()
        log = Log()
        run = open_run(Asks(), log, relaxed=True)
        await asyncio.sleep(RELAXED_SECONDS)
        log.hold_after = log.commits
        run.send_from_outside(Answer(number=0), None)
        free.set()
        await turns()
        before = list(seen)
        log.release.set()
        await run.result
        return before

    free = None
    assert asyncio.run(go()) == []
    assert seen == ["answer"]


def test_what_was_published_before_a_crash_is_not_published_again():
    class Publishes(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(3):
                ctx.write_event_to_stream(Item(number=n))
                await ctx.checkpoint()
            return StopEvent()

    async def go():
        log = Log()
        await to_end(Publishes(), log, [(3, True), (1, False), (2, True)])
        return [json.loads(data)["value"]["number"] for data in log.published]

    assert virtual_time.run(go()) == [0, 1, 2]


def test_a_waiting_invocation_is_no_suspect_of_a_crash():
    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Item)).number)

    async def go():
        log = Log()
        run = open_run(Asks(disable_validation=True), log)
        await asyncio.sleep(0.02)
        flight = list(log.flight)
        run.send_from_outside(Item(number=1), None)
        await run.result
        return flight, log.flight

    before, after = virtual_time.run(go())
    assert [sign for sign, _, _ in before] == ["+", "-"]
    assert [sign for sign, _, _ in after] == ["+", "-", "+", "-"]


class Opaque:
    """Nothing that JSON has a form for."""


class Odd(StopEvent):
    value: object


def test_a_result_that_is_no_json_does_not_keep_a_pickling_run_from_its_end():
    class Gives(Workflow):
        @step
        async def give(self, ev: StartEvent) -> Odd:
            return Odd(value=Opaque())

    async def go():
        log = Log()
        run = open_run(Gives(serializer=PickleSerializer()), log)
        await run.result
        return json.loads(log.outcome)

    outcome = virtual_time.run(go())
    assert outcome["reason"] == "Completed"
    assert "Opaque" in outcome["result"]


def test_sends_of_a_step_in_a_thread_come_before_what_it_returns_and_are_collected_once():
    class Threads(Workflow):
        @step
        def split(self, ctx: Context, ev: StartEvent) -> Done:
            for n in range(20):
                ctx.send_event(Item(number=n))
            return Done(number=20)

        @step(num_workers=4)
        def work(self, ctx: Context, ev: Item | Done) -> StopEvent | None:
            found = ctx.collect_events(ev, [Item] * 20 + [Done])
            return StopEvent(result=[e.number for e in found]) if found else None

    async def go():
        return (await open_run(Threads(), Log()).result).result

    assert sorted(asyncio.run(go())) == list(range(21))


def test_a_retried_step_publishes_its_question_once():
    class Asks(Workflow):
        tries = 0

        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Item(number=1))
            self.tries += 1
            if self.tries < 3:
                raise LookupError
            return StopEvent(result=answer.number)

    async def go():
        log = Log()
        run = open_run(Asks(disable_validation=True), log)
        await asyncio.sleep(0.02)
        run.send_from_outside(Answer(number=5), None)
        return (await run.result).result, len(log.published)

    assert virtual_time.run(go()) == (5, 1)


class Joins(Workflow):
    """Two parameters joined in each item's stream, lists within a list."""

    @step
    async def outer(self, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(3)]

    @step
    async def inner(self, ev: Item) -> list[Done | Answer]:
        return [Done(number=ev.number), Answer(number=10 * ev.number)]

    @step
    async def pair(self, done: Done, answer: Answer) -> Paired:
        return Paired(number=done.number + answer.number)

    @step
    async def level(self, events: list[Paired]) -> Levelled:
        return Levelled(number=sum(e.number for e in events))

    @step
    async def join(self, events: list[Levelled]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


@settings(max_examples=25, deadline=None)
@given(kills=KILLS, snapshots=st.booleans())
def test_joins_in_nested_lists_survive_any_kill(kills, snapshots):
    async def go():
        return await to_end(Joins(), Log(snapshots=snapshots), kills)

    assert virtual_time.run(go())["result"] == [0, 11, 22]


def test_the_engines_time_is_its_loops():
    """So that a loop whose time is turned turns all of it: what is at risk, and how long a try took."""
    elapsed = []

    class Policy:
        def next(self, elapsed_time, attempts, error):
            elapsed.append(elapsed_time)

    class Works(Workflow):
        @step(retry_policy=Policy())
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(60)
            ctx.send_event(Item(number=1))
            await asyncio.sleep(0)
            at_risk = run.loop._committer.waiter(strict=False)
            await asyncio.sleep(RELAXED_SECONDS)
            assert at_risk is None
            raise LookupError

        @step
        async def item(self, ev: Item) -> None: ...

    async def go():
        nonlocal run
        loop = asyncio.get_running_loop()
        run = open_run(Works(), Log(), relaxed=True, now=loop.time)
        with pytest.raises(LookupError):
            await run.result

    run = None
    virtual_time.run(go())
    assert elapsed == [pytest.approx(60 + RELAXED_SECONDS)]


def test_the_stores_time_goes_on_with_the_loops():
    class Sleeps(Workflow):
        @step
        async def sleep(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began = ctx.now()
            await asyncio.sleep(3600)
            return StopEvent(result=ctx.now() - began)

    async def go():
        store = MemoryStore(asyncio.get_running_loop().time)
        run = store.run("local", "r")
        await run.init(input_record({}))
        session = RunSession(run, epoch=1, holder="a")
        acquired = await session.acquire(10_000)
        durable = DurableRun.start(Sleeps(), session, *await session.load(), acquired=acquired)
        return json.loads(await durable.wait())["result"]

    assert virtual_time.run(go()) == pytest.approx(3600)


def test_a_set_that_a_failed_step_gave_back_is_taken_by_whoever_comes_next():
    """1 and 2 are a set, and it fails; with 3 it is whole again, and then 2 comes once more, then 4."""

    class Sets(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> None:
            for number in range(1, 5):
                ctx.send_event(Item(number=number))

        @step(num_workers=4, retry_policy=retry_policy(wait=wait_fixed(10), stop=stop_after_attempt(2)))
        async def pair(self, ctx: Context, ev: Item) -> Paired | None:
            await asyncio.sleep({1: 1, 2: 2, 3: 3, 4: 30}[ev.number] * (ctx.attempt == 0))
            found = ctx.collect_events(ev, [Item] * 2)
            if ev.number == 2 and ctx.attempt == 0:
                await asyncio.sleep(2)
                raise LookupError
            return Paired(number=sum(e.number for e in found)) if found else None

        @step
        async def end(self, ctx: Context, ev: Paired) -> StopEvent | None:
            found = ctx.collect_events(ev, [Paired] * 2)
            return StopEvent(result=sum(e.number for e in found)) if found else None

    async def go():
        return (await open_run(Sets(), Log(), now=asyncio.get_running_loop().time).result).result

    assert virtual_time.run(go()) == 1 + 2 + 3 + 4


def test_a_set_is_taken_by_a_step_whose_own_event_was_taken_when_it_comes_again():
    """4 takes 1 and 3, which 2 gave back; 2 comes again, takes 4, and is done; then 4 fails."""

    class Sets(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> None:
            for number in range(1, 5):
                ctx.send_event(Item(number=number))

        @step(num_workers=4, retry_policy=retry_policy(wait=wait_fixed(10), stop=stop_after_attempt(2)))
        async def pair(self, ctx: Context, ev: Item) -> Paired | None:
            await asyncio.sleep({1: 1, 2: 2, 3: 3, 4: 10}[ev.number] * (ctx.attempt == 0))
            found = ctx.collect_events(ev, [Item] * 2)
            if ev.number in (2, 4) and ctx.attempt == 0:
                await asyncio.sleep(ev.number**2)
                raise LookupError
            return Paired(number=sum(e.number for e in found)) if found else None

        @step
        async def end(self, ctx: Context, ev: Paired) -> StopEvent | None:
            found = ctx.collect_events(ev, [Paired] * 2)
            return StopEvent(result=[e.number for e in found]) if found else None

    async def go():
        return (await open_run(Sets(), Log(), now=asyncio.get_running_loop().time).result).result

    assert virtual_time.run(go()) == [4 + 2, 1 + 3]


def test_what_a_failed_step_added_and_another_took_and_gave_back_is_there_once():
    """Both fail: first the one that added, then the one that took it. Both are tried again."""

    class Sets(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> None:
            ctx.send_event(Item(number=1))
            ctx.send_event(Item(number=2))

        @step(retry_policy=retry_policy(wait=wait_fixed(10), stop=stop_after_attempt(2)))
        async def pair(self, ctx: Context, ev: Item) -> StopEvent | None:
            await asyncio.sleep(ev.number)
            found = ctx.collect_events(ev, [Item] * 2)
            await asyncio.sleep(2)
            if ctx.attempt == 0:
                raise LookupError
            return StopEvent(result=sorted(e.number for e in found)) if found else None

    async def go():
        return (await open_run(Sets(), Log(), now=asyncio.get_running_loop().time).result).result

    assert virtual_time.run(go()) == [1, 2]


def test_a_step_that_fails_after_what_it_added_was_taken_for_good_is_tried_again():
    class Sets(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> None:
            ctx.send_event(Item(number=1))
            ctx.send_event(Item(number=2))

        @step(retry_policy=retry_policy(wait=wait_fixed(10), stop=stop_after_attempt(2)))
        async def pair(self, ctx: Context, ev: Item) -> Paired | Done:
            found = ctx.collect_events(ev, [Item] * 2)
            if found:
                return Paired(number=sum(e.number for e in found))
            await asyncio.sleep(5)
            if ctx.attempt == 0:
                raise LookupError
            return Done(number=ev.number)

        @step
        async def end(self, paired: Paired, done: Done) -> StopEvent:
            return StopEvent(result=(paired.number, done.number))

    async def go():
        return (await open_run(Sets(), Log(), now=asyncio.get_running_loop().time).result).result

    assert virtual_time.run(go()) == (3, 1)


def test_an_answer_that_a_step_finds_is_given_once_it_is_durable():
    """The step is run again after a crash; the answer comes before its wait does, and is on its way still."""
    given_with = []

    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(1)
            answer = await ctx.wait_for_event(Answer)
            given_with.append(len(self.log.records))
            return StopEvent(result=answer.number)

    async def go():
        workflow = Asks(disable_validation=True)
        workflow.log = log = Log()
        first = open_run(workflow, log)
        await asyncio.sleep(2)  # it waits
        first.loop.stop(None, Killed())
        again = open_run(workflow, log)
        await asyncio.sleep(0.5)
        before, log.hold_after = len(log.records), log.commits
        again.send_from_outside(Answer(number=5), None)
        await asyncio.sleep(5)
        log.release.set()
        return before, (await again.result).result

    before, result = virtual_time.run(go())
    assert result == 5
    assert given_with == [before + 1]


def test_what_a_cut_off_step_sent_is_not_sent_again_when_it_is_cut_off_once_more_before_it_begins():
    """Both wait, and give their only slot away for it; of the next process only one can begin at once."""
    began = []

    class Sends(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Item]:
            return [Item(number=1), Item(number=2)]

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Item) -> Done:
            began.append(ev.number)
            ctx.send_event(Paired(number=ev.number))
            ctx.write_event_to_stream(Paired(number=ev.number))
            return Done(number=(await ctx.wait_for_event(Answer, requirements={"number": ev.number})).number)

        @step
        async def told(self, ctx: Context, ev: Paired) -> None:
            await ctx.store.append("told", ev.number)

        @step
        async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
            return StopEvent(result=[await ctx.store.get("told"), sorted(e.number for e in events)])

    async def go():
        workflow, log = Sends(disable_validation=True), Log()
        first = open_run(workflow, log)
        await asyncio.sleep(1)
        first.loop.stop(None, Killed())
        log.hold_after = log.commits + 1  # the takeover is there, and nothing that comes of it
        second = open_run(workflow, log)
        await asyncio.sleep(1)
        assert began == [1, 2, 1]
        second.loop.stop(None, Killed())
        log.hold_after = -1
        third = open_run(workflow, log)
        await asyncio.sleep(1)
        for number in (1, 2):
            third.send_from_outside(Answer(number=number), None)
        return (await third.result).result, log.published

    (told, joined), published = virtual_time.run(go())
    assert sorted(told) == [1, 2]
    assert joined == [1, 2]
    assert len(published) == 2


@pytest.mark.parametrize("opens", ["a second after the answer", "just before the answer is carried out"])
def test_a_step_that_waits_for_its_lease_and_gets_its_answer_meanwhile_begins_once(opens):
    began, gate = [], Gate()

    class Opens(Log):
        async def commit(self, batch: Batch) -> None:
            await super().commit(batch)
            if self.commits == 4 and opens.startswith("just before"):
                gate.open()

    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began.append(ctx.now())
            return StopEvent(result=(await ctx.wait_for_event(Answer)).number)

    async def go():
        workflow, log = Asks(disable_validation=True), Opens()
        first = open_run(workflow, log)
        await asyncio.sleep(1)
        first.loop.stop(None, Killed())
        gate.hold()
        again = open_run(workflow, log, gate=gate)
        await asyncio.sleep(1)
        again.send_from_outside(Answer(number=5), None)
        await asyncio.sleep(1)
        assert log.commits == 4 + (len(began) > 1)
        gate.open()
        result = (await again.result).result
        await asyncio.sleep(1)
        return result

    assert virtual_time.run(go()) == 5
    assert len(began) == 2
