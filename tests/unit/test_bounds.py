"""What a run takes while much is pending, or nobody looks: told by counts of what exists, not by time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest
import virtual_time

from perdure import Context, Workflow, step
from perdure.errors import WorkflowRuntimeError
from perdure.events import Event, StartEvent, StopEvent
from perdure.stream import MAX_UNREAD, EventStream


class Part(Event):
    number: int


class Worked(Event):
    number: int


class Answer(Event):
    pass


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return virtual_time.run(coroutine)


def test_10_000_pending_events_are_no_more_tasks_than_there_are_workers() -> None:
    most = 0

    class FansOut(Workflow):
        @step
        async def part(self, event: StartEvent) -> list[Part]:
            return [Part(number=number) for number in range(10_000)]

        @step(num_workers=8)
        async def work(self, ctx: Context, event: Part) -> Worked:
            nonlocal most
            await asyncio.sleep(0)
            most = max(most, len(asyncio.all_tasks()))
            return Worked(number=event.number)

        @step
        async def join(self, events: list[Worked]) -> StopEvent:
            return StopEvent(result=sum(event.number for event in events))

    async def go() -> Any:
        handler = FansOut(timeout=None).run()
        return await handler, handler._run.loop

    result, loop = run(go())
    assert result == sum(range(10_000))
    assert most <= 8 + 2  # the workers, who awaits the run, and the one that has just returned
    assert not loop.invocations()
    state = loop.state
    assert not any((state.works, state.steps, state.streams, state.joins, state.buffers, state.awaited))


def test_1_000_waiting_workflows_are_one_task_each_and_leave_nothing_behind() -> None:
    class Waits(Workflow):
        @step
        async def ask(self, ctx: Context, event: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, timeout=None)
            return StopEvent()

    async def go() -> tuple[int, int]:
        workflow = Waits(timeout=None)
        handlers = [workflow.run() for _ in range(1_000)]
        await asyncio.sleep(0.01)
        runs = [weakref.ref(handler._run) for handler in handlers]
        tasks = len(asyncio.all_tasks()) - 1
        for handler in handlers:
            await handler.send_event(Answer())
        await asyncio.gather(*handlers)
        del handlers, handler
        await asyncio.sleep(0)
        gc.collect()
        return tasks, sum(ref() is not None for ref in runs)

    assert run(go()) == (1_000, 0)


def test_a_stream_that_nobody_reads_keeps_its_last_events(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> list[Event]:
        stream = EventStream()
        for number in range(MAX_UNREAD + 5):
            stream.show(Part(number=number))
        stream.show(StopEvent())
        stream.close()
        return [event async for event in stream.read()]

    events = run(go())
    assert len(events) == MAX_UNREAD
    assert isinstance(events[-1], StopEvent)
    assert events[0].number == 6
    assert "first 6 are gone" in caplog.text


def test_who_reads_a_stream_gets_every_event_however_far_behind() -> None:
    async def go() -> list[int]:
        stream = EventStream()
        numbers = []

        async def read() -> None:
            async for event in stream.read():
                numbers.append(event.number)

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        for number in range(MAX_UNREAD + 5):
            stream.show(Part(number=number))
        stream.close()
        await reader
        return numbers

    assert run(go()) == list(range(MAX_UNREAD + 5))


def test_a_reader_that_left_counts_no_more_and_another_goes_on() -> None:
    async def go() -> list[int]:
        stream = EventStream()
        for number in range(3):
            stream.show(Part(number=number))
        reading = stream.read()
        await anext(reading)
        await reading.aclose()
        for number in range(3, MAX_UNREAD + 3):
            stream.show(Part(number=number))
        stream.close()
        numbers = [event.number async for event in stream.read()]
        with pytest.raises(WorkflowRuntimeError, match="already been consumed"):
            await anext(stream.read())
        return numbers

    assert run(go()) == list(range(3, MAX_UNREAD + 3))


def test_a_cancelled_reader_takes_nothing_from_another() -> None:
    async def go() -> list[int]:
        stream = EventStream()
        numbers: list[int] = []

        async def read() -> None:
            async for event in stream.read():
                numbers.append(event.number)

        first, second = asyncio.create_task(read()), asyncio.create_task(read())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        stream.show(Part(number=1))
        stream.close()
        await second
        return numbers

    assert run(go()) == [1]


def test_steps_that_have_run_leave_nothing_to_the_garbage_collector() -> None:
    class Chain(Workflow):
        @step
        async def go_on(self, ctx: Context, event: StartEvent | Part) -> Part | StopEvent:
            number = event.get("left", 0) if isinstance(event, StartEvent) else event.number
            return Part(number=number - 1) if number else StopEvent()

    async def garbage_of(steps: int) -> int:
        gc.collect()
        gc.disable()
        try:
            await Chain(timeout=None).run(left=steps)
            return gc.collect()
        finally:
            gc.enable()

    async def go() -> tuple[int, int]:
        await garbage_of(1)
        return await garbage_of(10), await garbage_of(200)

    few, many = run(go())
    assert many - few < 100  # not one object for each step
