"""A step that keeps the event loop from turning is named."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from perdure import Workflow, step
from perdure.engine import blocking
from perdure.engine.blocking import STEP, _Watch, _Watched
from perdure.events import StartEvent, StopEvent


class Turned:
    """A clock that is turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def looks_at(work: object, *, looks: int) -> None:
    """Run `work` as a step's task while another thread looks at it so often, half a second apart each time."""
    clock, loop = Turned(), asyncio.new_event_loop()
    watch, done = _Watch(clock), threading.Event()

    async def step() -> None:
        seen = _Watched()

        def look() -> None:
            for _ in range(looks):
                watch.look(loop, seen)
                clock.now += blocking.PERIOD
            done.set()

        threading.Thread(target=look).start()
        if work == "blocks":
            done.wait(10)
        while not done.is_set():
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(loop.create_task(step(), name=STEP + "greedy"))
    finally:
        loop.close()


def test_a_step_that_blocks_the_loop_is_named_once_with_the_place(caplog: pytest.LogCaptureFixture) -> None:
    looks_at("blocks", looks=9)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1, told
    assert "step greedy has blocked the event loop" in told[0]
    assert "threading.py" in told[0]


def test_a_step_that_blocks_for_less_than_a_second_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    looks_at("blocks", looks=3)
    assert not caplog.records


def test_a_loop_that_runs_one_step_all_the_time_but_turns_is_left_in_peace(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(seen: _Watched) -> None:
        asked.append(seen)
        seen.asked = None

    monkeypatch.setattr(_Watched, "answered", answer)

    async def go() -> None:
        loop = asyncio.get_running_loop()
        clock, seen = Turned(), _Watched()
        watch = _Watch(clock)
        for _ in range(10):
            watch.look(loop, seen)
            clock.now += 5
            await asyncio.sleep(0)

    asyncio.run(go())
    assert asked
    assert not caplog.records


def test_the_watching_thread_is_one_for_all_loops_and_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "PERIOD", 0.001)
    watch = _Watch()
    monkeypatch.setattr(blocking, "_WATCH", watch)

    class Quick(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=sum(t.name == "perdure-blocking" for t in threading.enumerate()))

    before = sum(t.name == "perdure-blocking" for t in threading.enumerate())
    for _ in range(3):
        assert asyncio.run(_result(Quick())) <= before + 1
    deadline = time.monotonic() + 10
    while watch._running and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not watch._running
    assert not watch.loops


async def _result(workflow: Workflow) -> int:
    count: int = await workflow.run()
    return count


def test_a_look_at_loops_that_are_all_gone_by_then_is_none() -> None:
    # One that closed without a word is collected between the question whether there are any and the look.
    _Watch().look_at_all()
