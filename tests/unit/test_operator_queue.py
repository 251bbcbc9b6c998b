"""The queue: each key once, none lost, none twice at a time. Time is a number here."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_operator.queue import Retry, Schedule, WorkQueue, work


def test_a_key_asked_for_often_is_handed_out_once() -> None:
    schedule = Schedule[str]()
    for _ in range(5):
        schedule.put("a", 1.0)
    assert schedule.take(1.0) == "a"
    assert schedule.take(1.0) is None


def test_the_earliest_time_asked_for_holds() -> None:
    schedule = Schedule[str]()
    schedule.put("a", 9.0)
    schedule.put("a", 2.0)
    schedule.put("a", 5.0)
    assert schedule.next_at() == 2.0
    assert schedule.take(1.9) is None
    assert schedule.take(2.0) == "a"


def test_a_key_isnt_handed_to_a_second_worker_until_the_first_is_done() -> None:
    schedule = Schedule[str]()
    schedule.put("a", 0.0)
    assert schedule.take(0.0) == "a"
    schedule.put("a", 0.0)
    assert schedule.take(1.0) is None
    schedule.done("a")
    assert schedule.take(1.0) == "a"


def test_what_is_asked_for_during_a_look_isnt_lost() -> None:
    schedule = Schedule[str]()
    schedule.put("a", 0.0)
    schedule.take(0.0)
    schedule.put("a", 3.0)
    schedule.done("a")
    assert schedule.next_at() == 3.0


def test_back_off_doubles_up_to_its_limit_and_ends_with_success() -> None:
    schedule = Schedule[str](backoff=1.0, backoff_limit=5.0)
    assert [schedule.delay_after_failure("a") for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    assert schedule.delay_after_failure("b") == 1.0
    schedule.forget_failures("a")
    assert schedule.delay_after_failure("a") == 1.0


Step = st.tuples(st.sampled_from(["put", "take", "done"]), st.sampled_from("abc"), st.integers(0, 5))


@given(st.lists(Step, max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_the_order_every_key_asked_for_comes_and_never_twice_at_once(
    steps: list[tuple[str, str, int]],
) -> None:
    schedule, now = Schedule[str](), 0.0
    due: dict[str, float] = {}
    active: list[str] = []
    for step, key, number in steps:
        now += number / 10
        if step == "put":
            schedule.put(key, now + number)
            due[key] = min(due.get(key, 1e9), now + number)
        elif step == "take":
            ready = {one for one, at in due.items() if at <= now and one not in active}
            taken = schedule.take(now)
            assert (taken in ready) if ready else taken is None
            if taken is not None:
                active.append(taken)
                del due[taken]
        elif key in active:
            active.remove(key)
            schedule.done(key)
    for key in active:
        schedule.done(key)
    left = set()
    while (taken := schedule.take(1e6)) is not None:
        left.add(taken)
    assert left == set(due)


async def _run(queue: WorkQueue[str], reconcile, until: asyncio.Event, workers: int = 3) -> None:  # type: ignore[no-untyped-def]
    tasks = [asyncio.create_task(work(queue, reconcile)) for _ in range(workers)]
    try:
        async with asyncio.timeout(5):
            await until.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_reconcile_that_raises_is_tried_again() -> None:
    async def scene() -> list[str]:
        queue: WorkQueue[str] = WorkQueue(Schedule(backoff=0.001))
        seen: list[str] = []
        over = asyncio.Event()

        async def reconcile(key: str) -> float | None:
            seen.append(key)
            if len(seen) == 1:
                raise RuntimeError("an unforeseen error")
            if len(seen) == 2:
                raise Retry("not yet")
            over.set()
            return None

        queue.add("a")
        await _run(queue, reconcile, over)
        return seen

    assert asyncio.run(scene()) == ["a", "a", "a"]


def test_a_slow_key_doesnt_hold_up_the_others() -> None:
    async def scene() -> set[str]:
        queue: WorkQueue[str] = WorkQueue()
        seen: set[str] = set()
        over = asyncio.Event()

        async def reconcile(key: str) -> float | None:
            if key == "slow":
                await asyncio.Event().wait()
            seen.add(key)
            if seen == {"a", "b"}:
                over.set()
            return None

        for key in ("slow", "a", "b"):
            queue.add(key)
        await _run(queue, reconcile, over)
        return seen

    assert asyncio.run(scene()) == {"a", "b"}


def test_the_seconds_a_reconcile_answers_with_bring_the_key_back() -> None:
    async def scene() -> int:
        queue: WorkQueue[str] = WorkQueue()
        seen = 0
        over = asyncio.Event()

        async def reconcile(key: str) -> float | None:
            nonlocal seen
            seen += 1
            if seen == 3:
                over.set()
                return None
            return 0.001

        queue.add("a")
        await _run(queue, reconcile, over)
        return seen

    assert asyncio.run(scene()) == 3


def test_an_earlier_key_wakes_a_worker_that_waits_for_a_later_one() -> None:
    async def scene() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        seen: list[str] = []
        over = asyncio.Event()

        async def reconcile(key: str) -> float | None:
            seen.append(key)
            over.set()
            return None

        async def later() -> None:
            await asyncio.sleep(0.01)
            queue.add("now")

        queue.add("in an hour", 3600.0)
        task = asyncio.create_task(later())
        await _run(queue, reconcile, over, workers=1)
        await task
        return seen

    assert asyncio.run(scene()) == ["now"]
