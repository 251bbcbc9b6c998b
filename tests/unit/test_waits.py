"""Waits by the thousand: each answer finds its own, and what it finds is what asking each would."""

from __future__ import annotations

import asyncio
import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run_to_end as run

from perdure import Context, Workflow, step
from perdure.engine import waits
from perdure.engine.index import WaitIndex
from perdure.events import Event, StartEvent, StopEvent


class Question(Event):
    number: int


class Answer(Event):
    number: Any
    tags: Any = None


class Answered(Event):
    number: int


class Colour(enum.StrEnum):
    RED = "red"


class Asks(Workflow):
    @step
    async def part(self, event: StartEvent) -> list[Question]:
        return [Question(number=number) for number in range(event.count)]

    @step
    async def ask(self, ctx: Context, event: Question) -> Answered:
        answer = await ctx.wait_for_event(Answer, requirements={"number": event.number}, timeout=None)
        return Answered(number=answer.number)

    @step
    async def join(self, events: list[Answered]) -> StopEvent:
        return StopEvent(result=[event.number for event in events])


async def all_wait(handler: Any, count: int) -> None:
    while sum(len(q.waiting) for q in handler._run.loop.state.steps.values()) < count:
        await asyncio.sleep(0)


def test_an_answer_asks_one_of_many_waits_and_each_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    matches = waits._matches

    def counted(*arguments: Any) -> bool:
        nonlocal asked
        asked += 1
        return matches(*arguments)

    monkeypatch.setattr(waits, "_matches", counted)

    async def go() -> Any:
        handler = Asks(timeout=None).run(count=300)
        await all_wait(handler, 300)
        order = range(299, -1, -1)
        for number in order:
            await handler.send_event(Answer(number=number))
        state = handler._run.loop.state
        result = await handler
        return sorted(result) == list(range(300)), state.awaited, state.index

    assert run(go()) == (True, {}, None)
    assert asked <= 300 + waits.FEW**2


@pytest.mark.parametrize("value", [7.0, True, Colour.RED, "red", None, [1], {"a": 1}])
def test_equal_values_answer_whatever_their_types(value: Any) -> None:
    wanted = json.loads(json.dumps(value))

    class AsksAlike(Workflow):
        @step
        async def part(self, event: StartEvent) -> list[Question]:
            return [Question(number=number) for number in range(waits.FEW + 2)]

        @step(num_workers=waits.FEW + 2)
        async def ask(self, ctx: Context, event: Question) -> Answered:
            await ctx.wait_for_event(Answer, requirements={"tags": wanted, "number": 1}, timeout=None)
            return Answered(number=event.number)

        @step
        async def join(self, events: list[Answered]) -> StopEvent:
            return StopEvent(result=len(events))

    async def go() -> Any:
        handler = AsksAlike(timeout=5).run()
        await all_wait(handler, waits.FEW + 2)
        await handler.send_event(Answer(number=2, tags=value))
        await handler.send_event(Answer(number=True, tags=value))
        return await handler

    assert run(go()) == waits.FEW + 2


simple = st.one_of(st.integers(-2, 2), st.booleans(), st.sampled_from([0.0, 1.0, -0.0, 1.5]), st.none())
values = st.one_of(simple, st.sampled_from(["a", "red"]), st.just([1]), st.just({"a": 1}))
requirements = st.dictionaries(st.sampled_from(["number", "tags", "missing"]), values, max_size=3)
events = st.builds(Answer, number=st.one_of(values, st.just(Colour.RED)), tags=values)


@given(st.lists(requirements, max_size=12), events, st.data())
def test_the_index_finds_every_wait_that_matches_and_none_that_was_taken_out(
    wanted: list[dict[str, Any]], event: Answer, data: st.DataObject
) -> None:
    index = WaitIndex()
    placed = [(json.dumps(w, sort_keys=True).encode() if w else None, n % 5) for n, w in enumerate(wanted)]
    for bytes_, work in placed:
        index.add("kind", bytes_, work)
    gone = data.draw(st.sets(st.sampled_from(range(len(placed))))) if placed else set()
    for number in gone:
        index.remove("kind", *placed[number])
    left = [place for number, place in enumerate(placed) if number not in gone]
    found = index.find("kind", event)
    matching = {
        work
        for bytes_, work in left
        if all(getattr(event, name, None) == value for name, value in json.loads(bytes_ or b"{}").items())
    }
    assert matching <= found <= {work for _, work in left}
    assert not index.find("another", event)


def test_events_in_memory_that_come_early_need_no_encoding() -> None:
    class AsksLate(Workflow):
        @step
        async def ask(self, ctx: Context, event: StartEvent) -> StopEvent:
            await asyncio.sleep(0.01)
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=answer.number)

    async def go() -> tuple[Any, object]:
        handler, given = AsksLate().run(), object()
        await asyncio.sleep(0)
        for value in (given, object(), object()):
            await handler.send_event(Answer(number=value))
        return await handler, given

    got, given = run(go())
    assert got is given


class Twice(Workflow):
    """One worker: number 0 waits twice at once, the second time later; number 1 keeps the worker meanwhile."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun: list[int] = []
        self.second, self.leave, self.free = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @step
    async def part(self, event: StartEvent) -> list[Question]:
        return [Question(number=number) for number in range(2)]

    @step(num_workers=1)
    async def ask(self, ctx: Context, event: Question) -> Answered:
        self.begun.append(event.number)
        if event.number == 1:
            await self.free.wait()
            return Answered(number=0)

        async def later() -> int:
            await self.second.wait()
            waiting = asyncio.create_task(self.answer(ctx, 2))
            leaving = asyncio.create_task(self.leave.wait())
            await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            if waiting.cancel():
                return 0
            return await waiting

        return Answered(number=sum(await asyncio.gather(self.answer(ctx, 1), later())))

    async def answer(self, ctx: Context, number: int) -> int:
        answer = await ctx.wait_for_event(Answer, requirements={"number": number}, timeout=None)
        return int(answer.number)

    @step
    async def join(self, events: list[Answered]) -> StopEvent:
        return StopEvent(result=sorted(event.number for event in events))


async def some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_step_that_two_waits_bring_on_takes_one_slot_and_runs_once() -> None:
    async def go() -> Any:
        workflow = Twice(timeout=None)
        handler = workflow.run()
        await all_wait(handler, 1)
        await handler.send_event(Answer(number=1))
        await some_turns()
        workflow.second.set()
        await some_turns()
        await handler.send_event(Answer(number=2))
        await some_turns()
        workflow.free.set()
        return await asyncio.wait_for(handler, 5), workflow.begun

    assert run(go()) == ([0, 3], [0, 1])


def test_a_step_that_leaves_a_wait_gets_the_answer_that_another_of_its_waits_had() -> None:
    async def go() -> Any:
        workflow = Twice(timeout=None)
        handler = workflow.run()
        await all_wait(handler, 1)
        await handler.send_event(Answer(number=1))
        await some_turns()
        workflow.second.set()
        await some_turns()
        workflow.leave.set()
        await some_turns()
        workflow.free.set()
        return await asyncio.wait_for(handler, 5), workflow.begun

    assert run(go()) == ([0, 1], [0, 1])
