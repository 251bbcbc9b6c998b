"""The engine's rules in any order of what can happen, with a crash at any point.

A driver stands in for the loop: it holds what follows from ticks until they are durable, and hypothesis
decides what happens next. So each order is reachable, and a failing one shrinks.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import virtual_time
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import Context, Workflow, catch_error, step
from perdure.durable import fold
from perdure.engine import waits
from perdure.engine.claims import Claims
from perdure.engine.index import WaitIndex
from perdure.engine.journal import Batch
from perdure.engine.model import (
    Begin,
    Command,
    Due,
    External,
    Failed,
    Failure,
    Payload,
    Published,
    Resume,
    Returned,
    Sent,
    Start,
    State,
    Takeover,
    Tick,
    WaitBegan,
    WaitEnded,
    Wake,
    Work,
    Wrote,
)
from perdure.engine.reduce import reduce
from perdure.events import Event, StartEvent, StepFailedEvent, StopEvent
from perdure.fold import live_store
from perdure.naming import qualified_name
from perdure.run import Run
from perdure.store.records import Record

ITEMS = 4
KEPT = 2 * ITEMS + 1  # what `gather` is given: of each seed, of each item, and of the join
SET = 3


class Seed(Event):
    number: int


class Item(Event):
    number: int


class Answer(Event):
    number: int


class Done(Event):
    number: int


class Kept(Event):
    number: int


class Group(Event):
    numbers: list[int]


class Shape(Workflow):
    """Every way that an event can go. What the steps do is the driver's; this is their signatures."""

    @step
    async def fan(self, ctx: Context, ev: StartEvent) -> list[Item]: ...

    @step(num_workers=2)
    async def seed(self, ev: Seed) -> Kept: ...

    @step(num_workers=3)
    async def work(self, ev: Item) -> Done: ...

    @step(num_workers=1)
    async def poor(self, ev: Item) -> Kept: ...

    @catch_error(for_steps=["poor"], max_recoveries=1)
    async def mend(self, ev: StepFailedEvent) -> Kept: ...

    @step
    async def join(self, events: list[Done]) -> Kept: ...

    @step(num_workers=3)
    async def gather(self, ctx: Context, ev: Kept) -> Group | None: ...

    @step(num_workers=2)
    async def last(self, ctx: Context, ev: Group) -> StopEvent | None: ...


WORKFLOW = Shape(disable_validation=True)
GRAPH = WORKFLOW._graph
CODEC = WORKFLOW._codec(WORKFLOW.serializer)


def payload(event: Event) -> Payload:
    made = CODEC.payload(event)
    made.encode()
    return made


@pytest.fixture(autouse=True, scope="module")
def _few_waits_are_many() -> Iterator[None]:
    """So that what finds the waits of thousands takes part here, where a few wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waits, "FEW", 0)
        yield


def plain(state: State) -> object:
    """A state as comparable values."""

    def encode(value: Any) -> Any:
        if isinstance(value, WaitIndex):  # derived
            return None
        return list(value) if isinstance(value, deque) else value.data

    return msgspec.to_builtins(state, enc_hook=encode, order="sorted")


class Driver:
    """One run: its log, what of it is durable, and the steps that run in the process of the moment."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose  # of so many moves, the one to make
        self.log: list[Tick] = []
        self.durable = 0
        self.state = State()
        self.snapshots: list[bytes] = [CODEC.encode_state(self.state)]  # after each tick
        self.held: list[Command] = []
        self.time = 0.0
        self.start_process()
        self.submit(Begin(0.0, payload(StartEvent()), GRAPH.shape))

    def start_process(self) -> None:
        self.claims = Claims(self.state)
        self.running: dict[int, Iterator[str | None]] = {}
        self.blocked: dict[int, str] = {}  # by the key of the wait that each is in
        self.timers: list[Wake] = []
        self.replays = set(self.state.works)

    # --- what can happen ------------------------------------------------------------------------------

    def submit(self, tick: Tick) -> None:
        self.log.append(CODEC.decode_ticks(CODEC.encode_ticks([tick]))[0])
        self.held += reduce(GRAPH, self.state, tick)
        self.snapshots.append(CODEC.encode_state(self.state))

    def commit(self) -> None:
        self.durable = len(self.log)
        held, self.held = self.held, []
        for command in held:
            match command:
                case Start(work):
                    self.running[work.id] = self.program(work)
                case Resume(work):
                    if work.id not in self.running:
                        self.running[work.id] = self.program(work)
                    self.blocked.pop(work.id, None)
                case Wake():
                    self.timers.append(command)

    def crash(self) -> None:
        """The process is gone, with all that was not durable; another takes the run up."""
        del self.log[self.durable :], self.snapshots[self.durable + 1 :]
        cut = self.choose(self.durable + 1)
        self.state = resumed(self.snapshots[cut], self.log[cut:])
        assert plain(self.state) == plain(CODEC.decode_state(self.snapshots[-1]))
        self.held = []
        self.start_process()
        self.submit(Takeover(self.time, self.state.epoch + 1))

    def fire(self, timer: Wake) -> None:
        self.timers.remove(timer)
        self.time = max(self.time, timer.at)
        tick = Due(self.time, timer.work) if timer.key is None else None
        self.submit(tick or WaitEnded(self.time, timer.work, timer.key or "", None))

    def advance(self, number: int) -> None:
        try:
            waits_for = next(self.running[number])
        except StopIteration:
            del self.running[number]
        else:
            if waits_for is not None:
                self.blocked[number] = waits_for

    def unanswered(self) -> list[int]:
        """The seeds that wait and whose answer is not in the log."""
        given = {t.event.event.number for t in self.log if isinstance(t, External)}
        asked = [t for t in self.log if isinstance(t, WaitBegan)]
        return sorted({json.loads(t.requirements or b"{}")["number"] for t in asked} - given)

    def moves(self) -> list[Callable[[], None]]:
        moves: list[Callable[[], None]] = []
        if self.held or self.durable < len(self.log):
            moves.append(self.commit)
        for number in self.running:
            if number not in self.blocked:
                moves.append(lambda number=number: self.advance(number))
        for timer in self.timers:
            moves.append(lambda timer=timer: self.fire(timer))
        for number in self.unanswered():
            moves.append(lambda n=number: self.submit(External(self.time, payload(Answer(number=n)))))
        return moves

    # --- what the steps do ------------------------------------------------------------------------------

    def program(self, work: Work) -> Iterator[str | None]:
        """The step of `work`, one of its acts at a time; None, or the key of the wait that it is in."""
        return getattr(self, f"_{work.step}")(work)

    def returned(self, work: Work, *events: Event, many: bool = False) -> None:
        added, taken = self.claims.settle(work.id)
        self.submit(Returned(self.time, work.id, [payload(e) for e in events], many, added, taken))

    def failed(self, work: Work, *, retry: bool) -> None:
        self.claims.give_back(work.id)
        recovery = None
        if not retry:
            recovery = payload(
                StepFailedEvent(
                    step_name=work.step,
                    input_event=work.events[0].event,
                    exception=LookupError(),
                    attempts=1,
                    elapsed_seconds=0.0,
                    failed_at="2024-01-01T00:00:00Z",
                )
            )
        retry_at = self.time + 1 if retry else None
        self.submit(Failed(self.time, work.id, Failure("LookupError", ""), 0.0, retry_at, recovery))

    def gave(self, known: list[bytes] | None, work: Work, ordinal: int, digest: bytes) -> bool:
        return (
            work.id in self.replays
            and known is not None
            and ordinal < len(known)
            and known[ordinal] == digest
        )

    def _fan(self, work: Work) -> Iterator[None]:
        for n in range(ITEMS):
            event = Seed(number=n)
            if not self.gave(work.sent, work, n, b"%d" % n):
                self.submit(Sent(work.id, n, b"%d" % n, payload(event)))
            yield None
            self.submit(Wrote(work.id, "append" if "n" in self.state.store else "list", "n", [b"%d" % n]))
            yield None
        self.returned(work, *(Item(number=n) for n in range(ITEMS)), many=True)

    def _seed(self, work: Work) -> Iterator[str | None]:
        n = work.events[0].event.number
        if not self.gave(work.published, work, 0, b"p"):
            self.submit(Published(work.id, 0, b"p", payload(Seed(number=n))))
        yield None
        wait = (work.waits or {}).get("w")
        if wait is None or wait.event is None:
            requirements = json.dumps({"number": n}).encode()
            self.submit(WaitBegan(work.id, "w", qualified_name(Answer), requirements, None, None))
            yield "w"
        answer = (work.waits or {})["w"].event
        assert answer is not None
        self.returned(work, Kept(number=answer.event.number))

    def _work(self, work: Work) -> Iterator[None]:
        yield None
        if work.attempts == 0 and self.choose(2):
            self.failed(work, retry=True)
        else:
            self.returned(work, Done(number=work.events[0].event.number))

    def _poor(self, work: Work) -> Iterator[None]:
        yield None
        n = work.events[0].event.number
        if n % 2:
            self.failed(work, retry=False)
        else:
            self.returned(work, Kept(number=10 + n))

    def _mend(self, work: Work) -> Iterator[None]:
        yield None
        self.returned(work, Kept(number=10 + work.events[0].event.input_event.number))

    def _join(self, work: Work) -> Iterator[None]:
        yield None
        assert sorted(p.event.number for p in work.events) == list(range(ITEMS))
        self.returned(work, Kept(number=20))

    def _gather(self, work: Work) -> Iterator[None]:
        yield None
        found = self.claims.collect(work, work.events[0], [Kept] * SET, "b")
        yield None
        if work.attempts == 0 and self.choose(2):
            self.failed(work, retry=True)
        else:
            self.returned(work, *([Group(numbers=[e.number for e in found])] if found else []))

    def _last(self, work: Work) -> Iterator[None]:
        yield None
        found = self.claims.collect(work, work.events[0], [Group] * (KEPT // SET), "b")
        yield None
        if work.attempts == 0 and self.choose(2):
            self.failed(work, retry=True)
        elif found:
            self.returned(work, StopEvent(result=sorted(n for group in found for n in group.numbers)))
        else:
            self.returned(work)


def resumed(snapshot: bytes, log: list[Tick]) -> State:
    state = CODEC.decode_state(snapshot)
    for tick in CODEC.decode_ticks(CODEC.encode_ticks(log)):
        reduce(GRAPH, state, tick)
    return state


def drive(seed: int, moves: int, crashes: list[int]) -> Driver:
    """Make as many moves as `seed` chooses them, then the first one each time, until the run has ended."""
    chance = random.Random(seed)
    made = 0
    driver = Driver(lambda among: chance.randrange(among) if made < moves else 0)
    for made in range(5000):
        if driver.state.ending is not None and driver.durable == len(driver.log):
            return driver
        if made in crashes:
            driver.crash()
            continue
        possible = driver.moves()
        assert possible, f"nothing can happen any more: {driver.state.works}"
        possible[driver.choose(len(possible))]()
    raise AssertionError("the run has no end")


# The moves themselves are a seed's: lists of them, as hypothesis draws them, are too short to reach the end.
SEEDS = st.integers(0, 2**32)
MOVES = st.integers(0, 400)
CRASHES = st.lists(st.integers(1, 200), max_size=4)


def executed(driver: Driver) -> Counter[tuple[str, str]]:
    """How often each step completed, or failed for good, for each input; from the log alone."""
    state, count = State(), Counter[tuple[str, str]]()
    for tick in driver.log:
        work = state.works.get(getattr(tick, "work", 0))
        before = set(state.works)
        reduce(GRAPH, state, tick)
        if work is not None and isinstance(tick, Returned | Failed) and work.id in before - set(state.works):
            count[work.step, str([p.data for p in work.events])] += 1
    return count


@settings(max_examples=400, deadline=None)
@given(seed=SEEDS, moves=MOVES, crashes=CRASHES)
@example(seed=1469785600, moves=115, crashes=[])  # what its retry has to take was given back by itself
def test_each_event_is_delivered_once_to_each_step_and_none_that_is_collected_is_lost_or_doubled(
    seed, moves, crashes
):
    driver = drive(seed, moves, crashes)
    ending = driver.state.ending
    assert ending is not None
    assert ending.reason == "Completed", ending
    expected = sorted([*range(ITEMS), *range(10, 10 + ITEMS), 20])
    assert ending.stop is not None
    assert ending.stop.event.result == expected
    count = executed(driver)
    assert set(count.values()) == {1}
    steps = Counter(name for name, _ in count)
    # Who only adds to a set may be running still when the last set ends the run.
    exactly = {"fan": 1, "seed": ITEMS, "work": ITEMS, "poor": ITEMS, "mend": ITEMS // 2, "join": 1}
    assert {name: steps[name] for name in exactly} == exactly
    assert driver.state.store["n"].items[0] == b"0"


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, moves=MOVES, crashes=CRASHES, data=st.data())
def test_snapshot_and_log_after_any_prefix_give_the_state_that_the_live_engine_had(
    seed, moves, crashes, data
):
    driver = drive(seed, moves, crashes)
    ends = data.draw(st.lists(st.integers(0, len(driver.log)), min_size=8, max_size=8))
    for end in ends:
        begin = data.draw(st.integers(0, end))
        live = CODEC.decode_state(driver.snapshots[end])
        assert plain(resumed(driver.snapshots[begin], driver.log[begin:end])) == plain(live)


# --- user code that goes on changing what it was given -----------------------------------------------


class Killed(Exception):
    """The process is gone."""


class Log:
    """A journal that keeps every record, and the snapshot after each."""

    wants_snapshot = True

    def __init__(self, end: int) -> None:
        self.records = [Record(0, 1, json.dumps({"input": {}}).encode())]
        self.taken: list[bytes] = []
        self.end = end

    async def commit(self, batch: Batch) -> None:
        await asyncio.sleep(0.01)  # others change what they hold meanwhile
        if len(self.records) == self.end:
            raise Killed
        assert batch.snapshot is not None
        self.records.append(Record(len(self.records), 1, batch.payload))
        self.taken.append(batch.snapshot)


KEYS = ("a", "b")
VALUES = st.one_of(
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.dictionaries(st.sampled_from("xy"), st.integers(0, 9)), max_size=3),
    st.dictionaries(st.sampled_from("xy"), st.lists(st.integers(0, 9), max_size=2)),
    st.integers(0, 9),
)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(KEYS), VALUES),
        st.tuples(st.just("append"), st.sampled_from(KEYS), st.integers(0, 9)),
        st.tuples(st.just("mutate"), st.sampled_from(KEYS), st.integers(0, 9)),
        st.tuples(st.just("put back"), st.sampled_from(KEYS), st.none()),
        st.tuples(st.just("edit"), st.sampled_from(KEYS), VALUES),
        st.tuples(st.just("pause"), st.just(""), st.none()),
    ),
    max_size=10,
)


def mutate(value: Any, number: int) -> None:
    if isinstance(value, dict):
        value[f"m{number}"] = number
    elif isinstance(value, list):
        if value and isinstance(value[0], dict | list):
            mutate(value[0], number)
        elif number % 2 or not value:
            value.append(number)
        else:
            value[0] = number


class Mutates(Workflow):
    def __init__(self, scripts: list[list[tuple[str, str, Any]]]) -> None:
        super().__init__()
        self.scripts = scripts
        self.written: dict[str, bytes] = {}

    @step
    async def start(self, ev: StartEvent) -> list[Item]:
        return [Item(number=n) for n in range(len(self.scripts))]

    @step(num_workers=3)
    async def act(self, ctx: Context, ev: Item) -> Done:
        held: list[Any] = []
        for act, key, value in self.scripts[ev.number]:
            found = await ctx.store.get(key, default=None) if key else None
            match act:
                case "set":
                    held.append(value)
                    await ctx.store.set(key, value)
                case "append":
                    if isinstance(found, list):
                        await ctx.store.append(key, value)
                case "mutate":
                    mutate(found, value)
                    for thing in held:
                        mutate(thing, value)
                case "put back":
                    await ctx.store.set(key, found)
                case "edit":
                    async with ctx.store.edit_state() as state:
                        state[key] = value
                case "pause":
                    await asyncio.sleep(0.003)
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        for key in KEYS:
            value = await ctx.store.get(key, default=None)
            await ctx.store.set(key, value)
            self.written[key] = json.dumps(value).encode()
        return StopEvent()


@settings(max_examples=200, deadline=None)
@given(
    scripts=st.lists(ACTS, min_size=1, max_size=3), end=st.one_of(st.just(10**6), st.integers(2, 20)),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_a_snapshot_is_the_fold_of_the_log_before_it_whatever_user_code_mutates(scripts, end, seed):
    workflow, log = Mutates(scripts), Log(end)
    codec = workflow._codec(workflow.serializer)

    async def go() -> None:
        state = State()
        run = Run(
            workflow,
            run_id="r",
            state=state,
            store=live_store(workflow, state, workflow.serializer),
            serializer=workflow.serializer,
            journal=log,
            now=asyncio.get_running_loop().time,
        )
        run.begin(StartEvent())
        await asyncio.wait([run.result])

    virtual_time.run(go(), seed)
    for count, snapshot in enumerate(log.taken, 2):
        state, _ = fold(workflow, codec, None, log.records[:count])
        assert plain(state) == plain(codec.decode_state(snapshot))
    if workflow.written and state.ending is not None:
        stored = live_store(workflow, state, workflow.serializer).export()
        assert {key: json.dumps(stored[key]).encode() for key in KEYS} == workflow.written
