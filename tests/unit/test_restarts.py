"""What a restart must not break: what a step gave away, what it waits for, and whose turn it is."""

import asyncio
import dataclasses
import json
import re
import threading

import pytest
from killable import Killed, Log, open_run
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.durable import DurableRun
from perdure.errors import LeaseLostError
from perdure.events import Event, InputRequiredEvent, StartEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from perdure.store.memory import MemoryStore
from perdure.store.records import input_record
from perdure.store.session import RunSession


class Item(Event):
    number: int


class Answer(Event):
    number: int


class Called(Event):
    pass


class Question(InputRequiredEvent):
    pass


async def cut_off(workflow: Workflow, log: Log, seconds: float = 0.03) -> None:
    """One process's life, which ends as by kill -9."""
    taken = open_run(workflow, log)
    await asyncio.sleep(seconds)
    taken.loop.stop(None, Killed())
    with pytest.raises(Killed):
        await taken.result


def test_a_retry_sends_what_the_try_before_sent_though_it_is_cut_off_before_it_does():
    class Sends(Workflow):
        lives = 0

        @step(retry_policy=retry_policy(wait=wait_fixed(0), stop=stop_after_attempt(3)))
        async def work(self, ctx: Context, ev: StartEvent) -> Item | StopEvent | None:
            if ctx.attempt == 0:
                ctx.send_event(Item(number=1))
                await ctx.checkpoint()
                raise ValueError
            if self.lives == 1:
                await asyncio.sleep(60)
            ctx.send_event(Item(number=1))
            return None

        @step
        async def take(self, ctx: Context, ev: Item) -> StopEvent | None:
            found = ctx.collect_events(ev, [Item] * 2)
            return StopEvent(result="both") if found else None

    async def go():
        log = Log()
        Sends.lives = 1
        await cut_off(Sends(), log)
        Sends.lives = 2
        return (await open_run(Sends(), log).result).result

    assert run(go()) == "both"


def test_a_replay_that_goes_another_way_sends_that_once_however_often_it_is_cut_off():
    class Turns(Workflow):
        life = 0

        @step
        async def work(self, ctx: Context, ev: StartEvent) -> Item | None:
            for number in (1, 2) if self.life == 1 else (3,):
                ctx.send_event(Item(number=number))
            await ctx.checkpoint()
            if self.life < 4:
                await asyncio.sleep(60)
            return None

        @step
        async def take(self, ctx: Context, ev: Item) -> None:
            await ctx.store.set(f"n{ev.number}", await ctx.store.get(f"n{ev.number}", 0) + 1)

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent()

    async def go():
        log = Log()
        for Turns.life in 1, 2, 3:
            await cut_off(Turns(disable_validation=True), log)
        Turns.life = 4
        last = open_run(Turns(disable_validation=True), log)
        await asyncio.sleep(0.03)
        return (await last.store.get_state()).to_dict()

    assert run(go()) == {"n1": 1, "n2": 1, "n3": 1}


class Slots(Workflow):
    """One worker: the first execution waits, the others work for a while."""

    most = 0
    inside = 0
    log: list[str]

    @step
    async def split(self, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(3)]

    @step(num_workers=1)
    async def work(self, ctx: Context, ev: Item) -> Answer:
        if ev.number == 0:
            await ctx.wait_for_event(Called)
        Slots.inside += 1
        Slots.most = max(Slots.most, Slots.inside)
        self.log.append(f"begins {ev.number}")
        await asyncio.sleep(0.03)
        Slots.inside -= 1
        return Answer(number=ev.number)

    @step
    async def join(self, events: list[Answer]) -> StopEvent:
        return StopEvent(result=[event.number for event in events])


@pytest.mark.parametrize("durable", [False, True])
def test_who_waits_holds_no_worker_slot_and_takes_one_again_before_it_goes_on(durable):
    Slots.most, Slots.inside, Slots.log = 0, 0, []

    async def go():
        flow = Slots()
        taken = open_run(flow, Log()) if durable else flow.run()._run
        while not Slots.log:
            await asyncio.sleep(0)
        taken.send_from_outside(Called(), None)
        return (await taken.result).result

    # 1 works while 0 waits. Called, 0 is the next, before 2, but not beside 1.
    assert run(go()) == [1, 0, 2]
    assert Slots.log == ["begins 1", "begins 0", "begins 2"]
    assert Slots.most == 1


def test_a_question_is_published_once_though_its_step_is_run_again_before_the_answer():
    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = await ctx.wait_for_event(Answer, waiter_event=Question())
            return StopEvent(result=answer.number)

    async def go():
        log = Log()
        for _ in range(3):
            await cut_off(Asks(disable_validation=True), log)
        last = open_run(Asks(disable_validation=True), log)
        last.send_from_outside(Answer(number=7), None)
        return (await last.result).result, [json.loads(data)["qualified_name"] for data in log.published]

    result, published = run(go())
    assert result == 7
    assert [name.rpartition(".")[2] for name in published] == ["Question"]


def test_two_waits_for_one_type_do_not_both_take_the_first_event():
    class Asks(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answers = await asyncio.gather(ctx.wait_for_event(Answer), ctx.wait_for_event(Answer))
            return StopEvent(result=[answer.number for answer in answers])

    async def go():
        taken = open_run(Asks(disable_validation=True), Log())
        await asyncio.sleep(0.02)
        for number in 1, 2:
            taken.send_from_outside(Answer(number=number), None)
        return (await taken.result).result

    assert run(go()) == [1, 2]


def test_a_waits_time_goes_on_over_restarts_and_while_no_process_runs():
    class Waits(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer, timeout=30)
            except TimeoutError:
                return StopEvent(result=ctx.now())
            return StopEvent()

    async def go():
        log, time = Log(), [1000.0]
        for _ in range(2):
            taken = open_run(Waits(disable_validation=True), log, now=lambda: time[0])
            await asyncio.sleep(0.02)
            assert not taken.result.done()
            taken.loop.stop(None, Killed())
            time[0] += 20
        return (await open_run(Waits(disable_validation=True), log, now=lambda: time[0]).result).result

    assert run(go()) == 1040.0


def test_the_time_of_the_next_try_is_drawn_once_and_holds_over_restarts():
    class Draws:
        drawn = 0

        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            Draws.drawn += 1
            return 30.0 * Draws.drawn if attempts == 1 else None

    class Retries(Workflow):
        @step(retry_policy=Draws())
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if ctx.attempt == 0:
                raise ValueError
            return StopEvent(result=ctx.now())

    async def go():
        log, time = Log(), [1000.0]
        for _ in range(3):
            taken = open_run(Retries(), log, now=lambda: time[0])
            await asyncio.sleep(0.02)
            assert not taken.result.done()
            taken.loop.stop(None, Killed())
            time[0] += 9.9
        time[0] = 1030.0
        return (await open_run(Retries(), log, now=lambda: time[0]).result).result

    assert run(go()) == 1030.0
    assert Draws.drawn == 1


def test_a_store_whose_clock_went_back_does_not_take_the_run_back_in_time():
    class Tells(Workflow):
        @step
        async def work(self, ctx: Context, ev: StartEvent) -> Item:
            await ctx.sleep(0)
            return Item(number=0)

        @step
        async def end(self, ctx: Context, ev: Item) -> StopEvent:
            return StopEvent(result=ctx.now())

    async def go():
        flow, store = Tells(), MemoryStore()
        held = store.run("local", "r")
        await held.init(input_record({}))
        for epoch, ahead in (1, 5000.0), (2, 0.0):
            if epoch > 1:
                await held.advance(epoch, "Crashed")
            session = RunSession(held, epoch=epoch, holder=f"h{epoch}")
            acquired = await session.acquire(10_000)
            acquired = dataclasses.replace(acquired, store_time=acquired.store_time + ahead)
            snapshot, records = await session.load()
            durable = DurableRun.start(flow, session, snapshot, records, acquired=acquired)
            began = acquired.store_time
            if epoch == 1:
                first = began
                while not durable.run.loop.state.works or 2 not in durable.run.loop.state.works:
                    await asyncio.sleep(0)
                durable.abandon(Killed())
                await asyncio.wait([durable.run.result])
        return (await durable.run.result).result - first

    assert run(go()) >= 0


def test_a_step_that_a_drain_kept_from_starting_is_not_said_to_have_run_again():
    class Queues(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[Item]:
            return [Item(number=n) for n in range(3)]

        @step(num_workers=1)
        async def work(self, ev: Item) -> Answer:
            await asyncio.sleep(0.03)
            return Answer(number=ev.number)

        @step
        async def join(self, events: list[Answer]) -> StopEvent:
            return StopEvent(result=len(events))

    async def go():
        log = Log()
        taken = open_run(Queues(), log)
        await asyncio.sleep(0.02)
        await taken.loop.drain(5)
        last = open_run(Queues(), log)
        return (await last.result).result, last.loop.state.completed, last.loop.state.replayed

    assert run(go()) == (3, 5, 0)


class TwoHands(Workflow):
    """One step in a thread that nobody can end, and one that writes state when another has the run."""

    def __init__(self, fence) -> None:
        super().__init__(disable_validation=True)
        self.fence, self.began, self.let_go = fence, threading.Event(), threading.Event()

    @step
    def stuck(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.began.set()
        self.let_go.wait(10)
        ctx.send_event(Item(number=1))
        return StopEvent(result="late")

    @step
    async def writes(self, ctx: Context, ev: StartEvent) -> None:
        while not self.began.is_set():
            await asyncio.sleep(0.001)
        await self.fence()
        await ctx.store.set("n", 1)

    @step
    async def takes(self, ev: Item) -> None:
        raise AssertionError


def test_a_program_that_lost_its_run_is_told_which_threads_go_on_and_nothing_of_theirs_is_kept(caplog):
    async def go():
        store = MemoryStore()
        held = store.run("local", "mine")
        flow = TwoHands(lambda: held.advance(2, "LeaseExpired"))
        with pytest.raises(LeaseLostError):
            await flow.run(run_id="mine", store=store)
        assert re.search(r"not these threads.*: \w+ \(step stuck\)", caplog.text)
        before = (await held.facts()).meta.seq
        flow.let_go.set()
        while "step stuck ended in its thread after it was given up" not in caplog.text:
            await asyncio.sleep(0.001)
        assert "dropped a late Sent of step stuck" in caplog.text
        assert (await held.facts()).meta.seq == before

    asyncio.run(go())


def test_a_step_in_a_thread_that_raises_stop_iteration_fails():
    class Stops(Workflow):
        @step
        def work(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=next(iter([])))

    async def go():
        with pytest.raises(RuntimeError, match="step work raised StopIteration"):
            await Stops().run()

    asyncio.run(go())
