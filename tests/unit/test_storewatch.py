"""When a store's word is taken, and what is asked of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from perdure.control.actions import AdvanceEpoch, CleanStore, CreatePod, Finish, InitStore, SetDesired
from perdure.control.observation import StoreState, StoreView
from perdure.control.storeside import apply_to_store, goes_on, observe_store
from perdure.control.storewatch import CROWD, Now, StoreWatch
from perdure.store.base import Lease, Meta, Reply, RunFacts, StoreFacts, Tag
from perdure.store.durability import NOT_TOLD
from perdure.store.memory import MemoryStore

START = 1_700_000_000.0
LEASE = 10.0
FACTS = StoreFacts("process-1", "master", "7.0", "always", START)
LIVE = RunFacts(Meta(epoch=1, holder="h"), Lease(1, "h", 6.0), 0, START)
SILENT = replace(LIVE, lease=None)


def at(seconds: float) -> Now:
    return Now(START + seconds, 1000.0 + seconds)


def facts(seconds: float, **changed: object) -> StoreFacts:
    return replace(FACTS, store_time=START + seconds, **changed)  # type: ignore[arg-type]


def view(
    watch: StoreWatch, seconds: float, run: RunFacts = LIVE, uid: str = "u", lease: float = LEASE
) -> StoreView:
    return watch.view(
        uid,
        run,
        identity="store-1",
        expected_id="store-1",
        doubts=(NOT_TOLD,),
        lease_seconds=lease,
        now=at(seconds),
    )


def calm() -> StoreWatch:
    """A watch whose own start is a minute past."""
    watch = StoreWatch(at(0))
    watch.answered("run", facts(60), at(60))
    assert view(watch, 60).state is StoreState.READY
    watch.forget("u")
    return watch


def test_a_new_observer_judges_nobody_for_one_lease() -> None:
    watch = StoreWatch(at(0))
    watch.answered("run", facts(1), at(1))
    assert (view(watch, 9.9).state, view(watch, 9.9).until) == (StoreState.GRACE, START + 10)
    assert view(watch, 10).state is StoreState.READY
    assert view(watch, 10, lease=30).state is StoreState.GRACE, "each run has its own lease"


def after_an_error(watch: StoreWatch) -> None:
    watch.failed(at(100))
    watch.answered("run", facts(115), at(115))


def after_a_restart(watch: StoreWatch) -> None:
    watch.answered("run", facts(115, run_id="process-2"), at(115))


def after_a_failover(watch: StoreWatch) -> None:
    watch.answered("run", facts(115, role="slave"), at(115))


def after_a_clock_step(watch: StoreWatch) -> None:
    watch.answered("run", facts(115 + 1.5), at(115))


@pytest.mark.parametrize("trouble", [after_an_error, after_a_restart, after_a_failover, after_a_clock_step])
def test_after_trouble_nobody_is_judged_for_one_lease(trouble: Callable[[StoreWatch], None]) -> None:
    watch = calm()
    trouble(watch)
    seen = view(watch, 116)
    assert (seen.state, seen.trouble_until, seen.until) == (StoreState.GRACE, START + 115, START + 125)
    assert view(watch, 125).state is StoreState.READY


def test_runs_of_a_cluster_are_on_several_servers_and_that_is_no_trouble() -> None:
    watch = calm()
    watch.answered("another", facts(61, run_id="process-2"), at(61))
    watch.answered("run", facts(62), at(62))
    assert view(watch, 62).state is StoreState.READY
    watch.answered("another", facts(63, run_id="process-3"), at(63))
    assert view(watch, 63).state is StoreState.GRACE, "its server is another: it may know of no lease"


def test_a_clock_that_drifts_is_no_trouble() -> None:
    watch = calm()
    for second in range(61, 200):
        watch.answered("run", facts(second + (second - 60) * 0.5), at(second))
    assert view(watch, 200).state is StoreState.READY


def test_another_store_is_wrong_whatever_it_holds() -> None:
    seen = calm().view(
        "u", LIVE, identity="store-2", expected_id="store-1", doubts=(NOT_TOLD,), lease_seconds=10, now=at(61)
    )
    assert seen.state is StoreState.WRONG
    assert "store-2" in seen.message
    assert "store-1" in seen.message


def test_a_crowd_that_falls_silent_is_held_one_lease_longer_and_once() -> None:
    watch = calm()
    uids = [f"u{n}" for n in range(2 * CROWD - 1)]
    for uid in uids:
        view(watch, 61, LIVE, uid)
    crowds = [view(watch, 70, SILENT, uid).crowd for uid in uids[:CROWD]]
    assert crowds == [False] * (CROWD - 1) + [True]
    assert view(watch, 79, SILENT, uids[0]).crowd
    assert not view(watch, 80, SILENT, uids[0]).crowd
    assert not view(watch, 90, SILENT, uids[1]).crowd, "the same silence doesn't hold judgement twice"


def test_a_few_among_many_are_judged() -> None:
    watch = calm()
    uids = [f"u{n}" for n in range(2 * CROWD)]
    for uid in uids:
        view(watch, 61, LIVE, uid)
    assert not any(view(watch, 70, SILENT, uid).crowd for uid in uids[:CROWD])


def test_runs_that_ended_are_no_crowd() -> None:
    watch = calm()
    ended = replace(SILENT, meta=Meta(epoch=1, holder="h", outcome=b"{}"))
    for n in range(CROWD):
        view(watch, 61, LIVE, f"u{n}")
    assert not any(view(watch, 70, ended, f"u{n}").crowd for n in range(CROWD))


# --- against a store ------------------------------------------------------------------------------


def test_what_is_decided_is_done_to_the_store() -> None:
    asyncio.run(decided_and_done())


async def decided_and_done() -> None:
    store = MemoryStore()
    watch = StoreWatch(at(0))

    async def look(expected: str = "", **more: bool) -> StoreView:
        return await observe_store(
            store,
            watch,
            namespace="n",
            uid="u",
            expected_id=expected,
            lease_seconds=LEASE,
            clock=lambda: at(60),
            **more,
        )

    assert (await look(may_create_id=False)).store_id == ""
    first = await look()
    assert first.store_id
    assert first.meta is None
    run = store.run("n", "u")

    async def do(action: object) -> bool:
        reply = await apply_to_store(action, run, record0=b"record", installation="i")  # type: ignore[arg-type]
        return goes_on(action, reply)  # type: ignore[arg-type]

    assert await do(InitStore())
    assert await do(AdvanceEpoch(2, "Crashed"))
    assert not await do(AdvanceEpoch(1, "Crashed")), "another's takeover is ahead"
    assert await do(SetDesired("Cancelled"))
    seen = await look(first.store_id)
    assert seen.meta is not None
    assert (seen.meta.epoch, seen.meta.desired, seen.meta.cause) == (2, "Cancelled", "Crashed")
    assert await do(Finish(3, "Cancelled", "by request", {"step": "a"}))
    assert not await do(AdvanceEpoch(4, "Crashed")), "nothing follows an outcome"
    ended = await look(first.store_id)
    assert ended.meta is not None
    assert ended.meta.outcome is not None
    assert json.loads(ended.meta.outcome)["failure"] == {"step": "a"}
    assert await do(CleanStore())
    assert (await look(first.store_id)).meta is None
    assert (await look("another")).state is StoreState.WRONG


def test_the_pods_actions_are_not_the_stores() -> None:
    assert goes_on(CreatePod(1, 1), None)
    assert not goes_on(AdvanceEpoch(3, "x"), Reply(Tag.OK, 4))
    assert not goes_on(AdvanceEpoch(3, "x"), Reply(Tag.NOMETA))
    assert goes_on(AdvanceEpoch(3, "x", deleted=True), Reply(Tag.NOMETA))
