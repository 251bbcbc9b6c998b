"""One seed's world: a run of a workflow, its store, and what happens to it; and what must hold throughout.

Beside the real parts stands the truth: the state that the committed records give, folded as the store
takes them. Every act of a step is held against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import virtual_time
from simulation.network import NOBODY, Link, ask
from simulation.workflows import WORKFLOWS, Answer, Prompt
from virtual_time import Process

from perdure.context import Context
from perdure.durable import DurableRun, fold
from perdure.engine import children as children_module
from perdure.engine.gate import Gate
from perdure.engine.invocation import Invocation
from perdure.engine.model import External, Failed, Returned, State
from perdure.engine.reduce import reduce
from perdure.engine.values import restore
from perdure.errors import LeaseLostError, RunEndedError, StateLostError, StoreUnavailableError
from perdure.events import Event, StopEvent
from perdure.inbox import message
from perdure.run import Run
from perdure.store import session as session_module
from perdure.store.base import Acquired, Commit, Renewed, Reply, Tag
from perdure.store.memory import MemoryRunStore, MemoryStore
from perdure.store.records import check, input_record, unframe
from perdure.store.session import RunSession

T = TypeVar("T")
LONGEST = 3600.0  # virtual seconds, by which a run must have ended
SNAPSHOTS: tuple[Any, ...] = (session_module, children_module)
SNAPSHOT_FLOOR = 600  # bytes: small, so that short runs have snapshots


class Broken(AssertionError):
    """An invariant does not hold."""


def must(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)


@dataclass(frozen=True)
class Plan:
    """What is run."""

    workflow: int
    count: int
    odd: int


@dataclass
class Verdict:
    """What a run came to: its outcome, what it published, and which steps completed with what."""

    outcome: dict[str, Any]
    published: Counter[bytes]
    executed: Counter[tuple[str, str]]


class Runner(Process):
    """One process that has, or wants, the run."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.holder = f"r{epoch}"
        self.gate = Gate()
        self.durable: DurableRun | None = None
        self.task: asyncio.Task[None]
        self.draining = False


class Watched:
    """The engine's host, looked at as it calls steps and shows events."""

    def __init__(self, world: World, runner: Runner, run: Run) -> None:
        self._world = world
        self._runner = runner
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    async def call(self, invocation: Invocation) -> Any:
        self._world.guard(lambda: self._world.begins(self._runner, invocation))
        try:
            return await self._run.call(invocation)
        except Broken as error:
            self._world.fail(error)
            raise

    def show(self, event: Event) -> None:
        if not isinstance(event, StopEvent):
            self._world.guard(lambda: self._world.shows(event))
        self._run.show(event)


class World:
    """chance: None for a world without faults, in asyncio's own order."""

    def __init__(self, plan: Plan, seed: int | None) -> None:
        self.plan = plan
        # Not the plan's own draws once more: else which workflows are Relaxed would be decided by the plan.
        self.chance = random.Random(f"world {seed}")
        self.faulty = seed is not None
        self.relaxed = self.faulty and self.chance.random() < 0.2
        self.trace: list[str] = []
        self.errors: list[BaseException] = []
        self.truth = State()
        self.completed: Counter[tuple[str, str]] = Counter()
        self.ended: set[int] = set()  # works that completed, or failed for good
        self.answers: set[int] = set()  # those from outside that are durable
        self.child_values: dict[str, Any] = {}  # of the children's states: the last write that returned
        self.child_done: set[str] = set()  # steps of children whose event another step was given
        self.runners: list[Runner] = []
        self.clients: set[asyncio.Task[None]] = set()
        self._workflow = WORKFLOWS[plan.workflow]()
        self._workflow.world = self
        self._codec = self._workflow._codec(self._workflow.serializer)
        self._writers: list[tuple[int, str]] = []

    # --- what steps do ----------------------------------------------------------------------------------

    def pause(self) -> float:
        return self.chance.choice((0.0, 0.0, 0.001, 0.05, 0.4)) if self.faulty else 0.0

    def delay(self) -> float:
        if not self.faulty:
            return 0.0
        return self.chance.choice((0.0, 0.0005, 0.0005, 0.001, 0.02, 0.3))

    def _value(self, key: str) -> Any:
        stored = self.truth.store.get(key)
        return None if stored is None else restore(stored, json.loads)

    def wrote(self, key: str, value: Any) -> None:
        must(self.relaxed or self._value(key) == value, f"a write of {key} returned and isn't durable")

    def read(self, key: str, value: Any) -> None:
        found = self._value(key) or 0
        must(self.relaxed or found == value, f"{key} reads {value} where {found} is committed")

    def child_begins(self, what: str) -> None:
        must(self.relaxed or what not in self.child_done, f"a child's {what} has completed and runs again")

    def child_ended(self, what: str) -> None:
        self.child_done.add(what)

    def child_wrote(self, key: str, value: Any) -> None:
        self.child_values[key] = value

    def child_read(self, key: str, value: int) -> None:
        """A write may be durable whose step was killed before it returned."""
        least = self.child_values.get(key, 0)
        must(
            self.relaxed or least <= value <= least + 1,
            f"a child's {key} reads {value} after {least} was written",
        )

    def answered(self, ctx: Context[Any], answer: Event) -> None:
        assert ctx._invocation is not None
        work = self.truth.works.get(ctx._invocation.work.id)
        given = [w.event for w in (work.waits or {}).values() if w.event is not None] if work else []
        must(
            any(payload.event == answer for payload in given),
            f"{answer!r} was given to a step before it was durable",
        )

    # --- the store's side ---------------------------------------------------------------------------------

    def say(self, who: str, what: str) -> None:
        self.trace.append(f"{self._time():10.4f} {who:4} {what}")

    def _time(self) -> float:
        return self._loop.time() - 1000.0

    def ask(self, holder: str, what: str, request: Callable[[], Awaitable[T]]) -> T:
        answer = ask(request())
        told = answer.tag if isinstance(answer, Reply) else type(answer).__name__
        self.say(holder, f"{what} -> {told} {answer.number if isinstance(answer, Reply) else ''}")
        return answer

    async def acquire(self, store: MemoryRunStore, epoch: int, holder: str, ttl_ms: int) -> Any:
        answer = await store.acquire(epoch, holder, ttl_ms)
        if isinstance(answer, Acquired) and self._writers[-1:] != [(epoch, holder)]:
            self.guard(lambda: must(epoch > max(self._epochs()), f"{holder} acquired an epoch that was used"))
            self._writers.append((epoch, holder))
        return answer

    def _epochs(self) -> list[int]:
        return [0, *(epoch for epoch, _ in self._writers)]

    async def commit(self, store: MemoryRunStore, epoch: int, holder: str, commit: Commit) -> Reply:
        run = store._get()
        assert run is not None
        before = run.seq
        reply = await store.commit(epoch, holder, commit)
        if run.seq != before:
            self.guard(lambda: self._committed(epoch, holder, commit))
        return reply

    def _committed(self, epoch: int, holder: str, commit: Commit) -> None:
        must((epoch, holder) == self._writers[-1], f"{holder} wrote at epoch {epoch} past {self._writers}")
        for tick in self._codec.decode_ticks(unframe(commit.record).payload):
            work = self.truth.works.get(getattr(tick, "work", 0))
            reduce(self._workflow._graph, self.truth, tick)
            if isinstance(tick, External) and isinstance(tick.event.event, Answer):
                must(tick.event.event.number not in self.answers, f"{tick.event} is in the log twice")
                self.answers.add(tick.event.event.number)
            if isinstance(tick, Returned | Failed) and work is not None and work.id not in self.truth.works:
                must(work.id not in self.ended, f"{work.step} {work.id} completed twice")
                self.ended.add(work.id)
                self.completed[work.step, _inputs(work.events)] += 1
        for event in commit.events:
            self._asked(self._workflow.serializer.deserialize(event.decode()))

    def guard(self, action: Callable[[], T]) -> T | None:
        """What breaks in here breaks the run, though whoever called caught it."""
        try:
            return action()
        except Exception as error:
            self.fail(error)
            return None

    def fail(self, error: Exception) -> None:
        self.errors.append(error)
        self._over.set()

    # --- runners --------------------------------------------------------------------------------------------

    def start_runner(self, epoch: int) -> Runner:
        runner = Runner(epoch)
        self.runners.append(runner)
        self.say(runner.holder, "starts")
        runner.task = runner.run(lambda: self._loop.create_task(self._run(runner)))
        return runner

    async def _run(self, runner: Runner) -> None:
        try:
            await self._hold(runner)
        except Exception as error:
            self.say(runner.holder, f"ends: {error!r}")
            facts = ask(self._store.facts()).meta
            fenced = facts.epoch > runner.epoch
            if not (fenced and isinstance(error, LeaseLostError | StateLostError)) and not (
                facts.outcome is not None and isinstance(error, RunEndedError)
            ):
                self.fail(error)
        self._over.set()

    async def _hold(self, runner: Runner) -> None:
        link: Any = Link(self, self._store, runner.holder)
        session = RunSession(link, epoch=runner.epoch, holder=runner.holder, clock=self._loop.time)
        acquired = await _insist(lambda: session.acquire(10_000))
        snapshot, records = await _insist(session.load)
        state, _ = fold(self._workflow, self._codec, snapshot, records)
        fenced = ask(self._store.facts()).meta.epoch > runner.epoch
        must(fenced or _plain(state) == _plain(self.truth), "what a successor loads isn't what was committed")
        runner.durable = self._open(runner, session, snapshot, records, acquired)
        renewing = self._loop.create_task(self._renew(runner, link))
        try:
            await runner.durable.wait()
        finally:
            renewing.cancel()
        self.say(runner.holder, "ends: its run is over here")
        if runner.draining:
            await session.release("yield")

    async def _renew(self, runner: Runner, link: Any) -> None:
        """The lease's thread, as far as the run is told of it."""
        assert runner.durable is not None
        while True:
            await asyncio.sleep(0.5)
            with contextlib.suppress(StoreUnavailableError):
                answer = await link.renew(runner.epoch, runner.holder, 10_000)
                if isinstance(answer, Renewed):
                    runner.durable.renewed(answer)
                elif answer.tag is Tag.FENCED:
                    runner.durable.abandon(LeaseLostError("fenced"))

    def _open(
        self, runner: Runner, session: RunSession, snapshot: bytes | None, records: Any, acquired: Acquired
    ) -> DurableRun:
        durable = DurableRun.start(
            self._workflow,
            session,
            snapshot,
            records,
            acquired=acquired,
            gate=runner.gate,
            durability="Relaxed" if self.relaxed else "Strict",
            run_id="run",
        )
        durable.run.loop._host = Watched(self, runner, durable.run)  # type: ignore[assignment]
        return durable

    def begins(self, runner: Runner, invocation: Invocation) -> None:
        work = invocation.work
        name = f"{work.step} {work.id}"
        self.say(runner.holder, f"{name} begins")
        must(work.id not in self.ended, f"{name} has completed and runs again")
        must(runner.epoch == ask(self._store.facts()).meta.epoch, f"{name} begins in a fenced process")
        if not self.relaxed:
            known = self.truth.works.get(work.id)
            must(
                known is not None and _inputs(known.events) == _inputs(work.events),
                f"{name} begins before what it is for is durable",
            )

    def shows(self, event: Event) -> None:
        data = self._workflow.serializer.serialize(event).encode()
        must(data in self._store._get().events, f"{event!r} is shown before it is durable")

    # --- who answers ------------------------------------------------------------------------------------------

    def _asked(self, event: Event) -> None:
        if isinstance(event, Prompt):
            task = self._loop.create_task(self._answer(event.number), context=NOBODY)
            self.clients.add(task)

    async def _answer(self, number: int) -> None:
        await asyncio.sleep(self.pause() * 3)
        if self.chance.random() < 0.5:
            await self._answer_by_inbox(number)
        else:
            await self._answer_in_process(number)

    async def _answer_by_inbox(self, number: int) -> None:
        """As `perdure send`: until the store has taken it, under one id."""
        link = Link(self, self._store, "")
        sent = message("Answer", json.dumps({"number": number}).encode(), f"answer {number}")
        answer = await _insist(lambda: link.send(sent))
        self.guard(lambda: must(answer.ok, f"answer {number} was refused: {answer}"))

    async def _answer_in_process(self, number: int) -> None:
        """As a program does: until it is durable, again only when the process that got it is gone."""
        sent_to: Runner | None = None
        while number not in self.answers:
            runner = self.runners[-1]
            alive = not runner.dead and runner.durable is not None and not runner.durable.run.loop.stopped
            if alive and runner is not sent_to and not runner.draining:
                sent_to = runner
                self.say("", f"answers {number} to {runner.holder}")
                self._send(runner, Answer(number=number))
            await asyncio.sleep(0.25)

    def _send(self, runner: Runner, event: Event) -> None:
        assert runner.durable is not None
        run = runner.durable.run
        runner.run(lambda: run.send_from_outside(event, None))

    # --- what happens -------------------------------------------------------------------------------------------

    async def play(self) -> Verdict:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualLoop)
        self._loop = loop
        self._over = asyncio.Event()
        self._store = MemoryStore(self._loop.time).run("local", "run")
        await self._store.init(input_record({"count": self.plan.count, "odd": self.plan.odd}))
        try:
            await asyncio.wait_for(self._happen(), LONGEST)
            return await self._judge()
        except TimeoutError:
            raise Broken(f"the run has no end; open: {self.truth.works}") from None
        finally:
            self._close()

    async def _happen(self) -> None:
        runner = self.start_runner(1)
        faults = self.chance.choice((0, 1, 1, 2, 3, 5)) if self.faulty else 0
        while not self.errors:
            outcome = ask(self._store.facts()).meta.outcome
            if outcome is not None:
                if runner.task.done() or self._loop.time() > self._outcome_at + 60:
                    return
            else:
                self._outcome_at = self._loop.time()
            if runner.task.done() and outcome is None:
                must(runner.draining, "the runner is gone and its run hasn't ended")
                runner = await self._succeed(runner, "Resumed")
            self._over.clear()
            try:
                wait = self.chance.choice((0.0005, 0.002, 0.01, 0.1, 0.5, 2)) if faults else 30.0
                await asyncio.wait_for(self._over.wait(), wait)
            except TimeoutError:
                if faults and ask(self._store.facts()).meta.outcome is None:
                    faults -= 1
                    runner = await self._strike(runner)

    async def _strike(self, runner: Runner) -> Runner:
        """Something happens to the runner; returns who has the run then."""
        fault = self.chance.choice(("kill", "kill", "partition", "hold", "drain"))
        self.say(runner.holder, fault)
        match fault:
            case "kill":
                runner.kill(self._loop)
                await asyncio.sleep(self.pause())
                return await self._succeed(runner, "Crashed")
            case "partition":
                # Its lease runs out: it parks, or ends because user code is under way.
                if not runner.gate.park():
                    runner.kill(self._loop)
                return await self._succeed(runner, "LeaseExpired")
            case "hold":
                runner.gate.hold()
                await asyncio.sleep(self.pause())
                runner.run(runner.gate.open)
            case "drain" if runner.durable is not None and not runner.draining:
                runner.draining = True
                seconds = self.chance.choice((0.0, 0.2, 2.0))
                durable = runner.durable
                runner.run(lambda: self._loop.create_task(_drain(durable, seconds)))
        return runner

    async def _succeed(self, runner: Runner, cause: str) -> Runner:
        answer = await self._store.advance(runner.epoch + 1, cause)
        if not answer.ok:
            return runner
        await asyncio.sleep(self.pause())
        return self.start_runner(answer.number)

    async def _judge(self) -> Verdict:
        if self.errors:
            raise self.errors[0]
        run = self._store._get()
        loaded = await self._store.load()
        assert loaded is not None
        assert run.outcome is not None
        snapshot, records = check(loaded)
        state, _ = fold(self._workflow, self._codec, snapshot, records)
        must(_plain(state) == _plain(self.truth), "the log at the end isn't what was committed")
        document = json.loads(run.outcome)
        return Verdict(document, Counter(run.events), self.completed)

    def _close(self) -> None:
        """Let what is dead or parked be cleaned up, without any effect."""
        for runner in self.runners:
            runner.bury(self._loop)
            runner.gate.open()
            if runner.durable is not None:
                runner.durable.run.loop._stopped = True
        self.clients.clear()


async def _drain(durable: DurableRun, seconds: float) -> None:
    with contextlib.suppress(LeaseLostError, RunEndedError):  # the run's own waiting tells of it
        await durable.drain(seconds)


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            await asyncio.sleep(0.1)


def _inputs(events: Any) -> str:
    return str(sorted(payload.data for payload in events))


def _plain(state: State) -> object:
    return msgspec.to_builtins(
        state, enc_hook=lambda value: list(value) if isinstance(value, deque) else value.data, order="sorted"
    )


@functools.cache
def reference(plan: Plan) -> Verdict:
    """What the run comes to when nothing happens to it."""
    return virtual_time.run(World(plan, None).play())


def plan_of(seed: int) -> Plan:
    chance = random.Random(seed)
    return Plan(chance.randrange(len(WORKFLOWS)), chance.randint(2, 4), chance.randrange(4))


def simulate(seed: int) -> World:
    """Play the world of `seed`. Raises what is broken; the world with its trace is in `error.world`."""
    plan = plan_of(seed)
    floors = [module.SNAPSHOT_FLOOR for module in SNAPSHOTS]
    for module in SNAPSHOTS:
        module.SNAPSHOT_FLOOR = SNAPSHOT_FLOOR
    world = World(plan, seed)
    try:
        expected = reference(plan)
        random.seed(seed)  # of the session's pauses and the retries' jitter
        verdict = virtual_time.run(world.play(), seed)
        must(verdict.outcome == expected.outcome, f"the outcome is {verdict.outcome}, not {expected.outcome}")
        must(
            verdict.published == expected.published,
            f"published {verdict.published}, not {expected.published}",
        )
        free = world._workflow.free
        for key in expected.executed.keys() | verdict.executed.keys():
            if key[0] not in free:
                must(
                    verdict.executed[key] == expected.executed[key],
                    f"{key} completed {verdict.executed[key]} times, not {expected.executed[key]}",
                )
    except Exception as error:
        error.world = world  # type: ignore[attr-defined]
        raise
    finally:
        for module, floor in zip(SNAPSHOTS, floors, strict=True):
            module.SNAPSHOT_FLOOR = floor
    return world
