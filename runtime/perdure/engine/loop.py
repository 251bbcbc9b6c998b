"""The engine's rim: takes ticks, has them committed, then carries out what follows from them.

Without a journal a tick's commands are carried out at once. With one they wait until the tick is
durable: no event reaches another step, a stream or the result before. Ticks that are ready together
are one commit.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time as clock_module
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perdure.engine.blocking import STEP, watch
from perdure.engine.children import Within, in_flight
from perdure.engine.claims import Claims
from perdure.engine.committer import Committer
from perdure.engine.completions import Completions
from perdure.engine.doorway import Doorway
from perdure.engine.gate import Gate
from perdure.engine.graph import Graph
from perdure.engine.invocation import Host, Invocation
from perdure.engine.journal import Journal
from perdure.engine.model import (
    Begin,
    ChildCommit,
    Codec,
    Command,
    Drain,
    Due,
    Ending,
    Finish,
    Halted,
    Payload,
    Publish,
    Published,
    Reopened,
    Resume,
    Returned,
    Sent,
    Start,
    State,
    Takeover,
    Tick,
    Unhandled,
    WaitBegan,
    WaitEnded,
    WaitLeft,
    Wake,
    Work,
)
from perdure.engine.reduce import reduce
from perdure.engine.threads import Threads
from perdure.engine.timers import Timers
from perdure.engine.waits import is_waiting
from perdure.errors import LeaseLostError
from perdure.events import Event

log = logging.getLogger("perdure.engine")

CANCEL_GRACE = 0.5  # seconds that steps have to end in once the run has


class Loop:
    """One run in one process: its state, its open invocations, its commits."""

    __slots__ = (
        "_aio", "_claims", "_committer", "_doorway", "_drained", "_host", "_open", "_said_idle", "_stopped",
        "_taken_over", "_thread", "_threads", "_untimed", "codec", "completions", "gate", "graph", "now", "resting",
        "state", "stopping", "timed_out_steps", "timeout", "timers", "watched", "within",
    )  # fmt: skip

    def __init__(
        self,
        graph: Graph,
        state: State,
        codec: Codec,
        host: Host,
        *,
        journal: Journal | None = None,
        gate: Gate | None = None,
        now: Callable[[], float] = clock_module.time,
        relaxed: bool = False,
        timeout: float | None = None,
        within: Within | None = None,
    ) -> None:
        self.graph = graph
        self.state = state
        self.codec = codec
        self.now = now
        self.timed_out_steps: list[str] = []  # those that were running when the run's time was over
        self._host = host
        self.gate = gate
        self._doorway = None if gate is None else Doorway(gate)
        self.within = within
        self.timeout = timeout
        self._untimed = timeout is not None
        self._said_idle = False
        self.watched = False  # whether somebody wants to know of queues and rests
        self.resting = False
        self._aio = asyncio.get_running_loop()
        watch(self._aio)
        self._thread = threading.get_ident()
        self._claims = Claims(state)
        self.completions = Completions(graph, self._claims, self.payload, now)
        self._open: dict[int, Invocation] = {}
        self._stopped = False
        self.stopping: asyncio.Task[None] | None = None
        self.timers = Timers(self._aio)
        self._taken_over = False
        self._committer = (
            None
            if journal is None
            else Committer(state, codec, journal, self, outcome=host.outcome, relaxed=relaxed)
        )
        self._drained: asyncio.Future[None] | None = None
        self._threads: Threads | None = None
        if within is not None:
            within.children.running[within.id] = self
        elif gate is not None:
            gate.when_opened(self._opened_from_thread)

    # --- what happened ----------------------------------------------------------------------------

    @property
    def durable(self) -> bool:
        return self._committer is not None

    @property
    def stopped(self) -> bool:
        return self._stopped

    def invocations(self) -> list[Invocation]:
        """Those that run or wait in this process."""
        return list(self._open.values())

    @property
    def active(self) -> int:
        """How many executions run or wait in this process."""
        return len(self._open)

    def active_steps(self, most: int | None = None) -> list[str]:
        """The step of each of them, or of the `most` that began first."""
        return [invocation.work.step for invocation in itertools.islice(self._open.values(), most)]

    def alive(self) -> float:
        """Seconds that processes were alive for this run."""
        state = self.state
        return state.alive + (max(0.0, self.now() - state.taken_at) if state.begun else 0.0)

    def submit(self, tick: Tick) -> None:
        """Apply `tick`; from any thread. One that comes after the run's end changes nothing."""
        if threading.get_ident() != self._thread:
            self._aio.call_soon_threadsafe(self.submit, tick)
        else:
            self._apply(tick)

    def _apply(self, tick: Tick) -> None:
        if self._stopped or (self.state.ending is not None and not isinstance(tick, Reopened)):
            return
        if self._untimed and isinstance(tick, Begin | Takeover | Reopened):
            self._aio.call_soon(self._arm_timeout)
        known = self.state.next_id
        try:
            commands: Sequence[Command] = reduce(self.graph, self.state, tick)
        except Exception as error:  # a bug in the rules must end the run, not leave it hanging
            self.stop(None, error)
            return
        if self._committer is not None:
            commands = self._committer.add(tick, commands)
        elif isinstance(tick, Begin | Takeover):
            # Not before whoever began the run could begin to read its stream.
            self._aio.call_soon(self._carry_out_all, commands)
            commands = ()
        self._carry_out_all(commands)
        if not self.state.works and self.state.begun:
            self._idle()
        if self.watched:
            self._watch(known)

    def _carry_out_all(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self.carry_out(command)

    def _idle(self) -> None:
        if not self._said_idle and self.state.ending is None and not self._stopped:
            self._said_idle = True
            self._host.idle()

    def _watch(self, known: int) -> None:
        """Tell of work, new since the id `known`, that has to queue, and when the run comes to rest."""
        state = self.state
        for number in range(known, state.next_id):
            work = state.works.get(number)
            if work is not None and number not in state.steps[work.step].active:
                self._host.queued(work)
        rests = is_waiting(state) and all(work.retry_at is None for work in state.works.values())
        if rests and not self.resting:
            self._host.resting()
        self.resting = rests

    def payload(self, event: Event) -> Payload:
        """`event` in transit. Raises ValueError, to whoever gave it, when it can't be made durable."""
        payload = self.codec.payload(event)
        if self._committer is not None:
            payload.encode()
        return payload

    def submit_from(self, invocation: Invocation, tick: Tick) -> None:
        """`submit` what an invocation did; a closed one's late word is dropped."""
        if invocation.closed:
            log.warning(
                "dropped a late %s of step %s (invocation %d), which has ended",
                type(tick).__name__, invocation.work.step, invocation.work.id,
            )  # fmt: skip
            return
        self.submit(tick)

    def send(
        self, invocation: Invocation, ordinal: int, digest: bytes, payload: Payload, step: str | None
    ) -> None:
        """`Sent` by an invocation."""
        self.submit_from(invocation, Sent(invocation.work.id, ordinal, digest, payload, step))

    def publish(self, invocation: Invocation, ordinal: int, digest: bytes, payload: Payload) -> None:
        """`Published` by an invocation."""
        self.submit_from(invocation, Published(invocation.work.id, ordinal, digest, payload))

    def begin_wait(
        self,
        invocation: Invocation,
        key: str,
        kind: str,
        requirements: bytes | None,
        deadline: float | None,
        prompt: Payload | None,
    ) -> None:
        """`WaitBegan` by an invocation."""
        work = invocation.work.id
        self.submit_from(invocation, WaitBegan(work, key, kind, requirements, deadline, prompt))

    def leave_wait(self, invocation: Invocation, key: str) -> None:
        """`WaitLeft` by an invocation."""
        self.submit(WaitLeft(invocation.work.id, key))

    async def barrier(self, invocation: Invocation | None = None, *, strict: bool = False) -> None:
        """Return when all that was submitted is durable; in a Relaxed run, when it may be at risk."""
        if self._committer is None:
            return
        waiter = self._committer.waiter(strict=strict)
        if waiter is not None:
            await self.suspend(invocation, waiter)
        if strict and self.within is not None:
            # In a Relaxed run, what a child committed may be at risk in its parent.
            await self.suspend(invocation, self.within.loop.barrier(strict=True))
        if waiter is not None and self.state.draining and invocation is not None:
            # A commit of its own is where a step can be left without losing anything.
            self._leave_open(invocation)
            raise asyncio.CancelledError

    async def suspend(self, invocation: Invocation | None, awaited: Awaitable[Any]) -> Any:
        """Await inside the engine: the step's own code counts as not running meanwhile."""
        if invocation is None or self._doorway is None or asyncio.current_task() is not invocation.task:
            return await awaited
        self._doorway.leave(invocation)
        try:
            return await awaited
        finally:
            await self._doorway.enter(invocation)

    # --- steps --------------------------------------------------------------------------------------

    def carry_out(self, command: Command) -> None:
        """Do what follows from ticks that are durable."""
        if self._stopped:
            return
        match command:
            case Start():
                self._start(command)
            case Publish(event):
                self._host.show(event.event)
            case Resume(work, answered):
                self._resume(work, answered)
            case Wake():
                self._wake(command)
            case Unhandled(event, reason):
                self._host.unhandled(event.event, reason)
            case Finish(ending):
                self.stop(ending, None)

    def _start(self, command: Start) -> None:
        work = command.work
        if self.state.draining:
            return
        if self._taken_over and not self._readable(work):
            return
        invocation = Invocation(work, started=self._aio.time())
        if self._doorway is not None and not self._doorway.begin(invocation, command):
            return
        self._open[work.id] = invocation
        invocation.task = self._aio.create_task(self._run(invocation), name=STEP + work.step)

    def _readable(self, work: Work) -> bool:
        """Whether this process has the classes of what a predecessor left; the run can't go on here if not.

        It isn't the step's failure: with the right code it goes on.
        """
        try:
            for payload in work.events:
                _ = payload.event
        except Exception as error:
            self.root.stop(None, error)
            return False
        return True

    async def _run(self, invocation: Invocation) -> None:
        work = invocation.work
        try:
            result = await self._host.call(invocation)
            if invocation.closed:
                log.warning("dropped what step %s returned: it had ended before", work.step)
                return
            tick: Tick = self.completions.returned(invocation, result)
        except asyncio.CancelledError as error:
            if invocation.closed or self._stopped:
                return
            tick = self.completions.failed(invocation, error)
        except BaseException as error:  # SystemExit too: a step must not end its process
            if invocation.closed:
                log.warning("step %s raised after it had ended: %r", work.step, error)
                return
            tick = self.completions.failed(invocation, error)
        finally:
            # The task's context variables lead back to the invocation: a circle for each step that ran.
            invocation.task = None
            if self._doorway is not None:
                self._doorway.leave(invocation)
        if not invocation.closed:
            invocation.closed = True
            self._open.pop(work.id, None)
            if work.children is not None and self._committer is not None:
                self._committer.tell([("-", name, "") for name in in_flight(work)])
            children = invocation.children
            if children is not None and children.stop(None) and isinstance(tick, Returned):
                log.warning("step %s ended with child workflows still running: they are cancelled", work.step)
            self._apply(tick)
            if self._drained is not None or self.within is not None:
                self.check_drained()

    def in_thread(self, invocation: Invocation, function: Callable[[], Any]) -> Awaitable[Any]:
        """Run a step that isn't async."""
        if self._threads is None:
            self._threads = Threads()
        return self._threads.run(invocation, function)

    def _resume(self, work: Work, answered: list[str]) -> None:
        invocation = self._open.get(work.id)
        if invocation is None:
            self._start(Start(work))
            return
        for key in answered:
            answer = (invocation.answers or {}).get(key)
            if answer is not None and not answer.done():
                answer.set_result(None)

    # --- the gate -------------------------------------------------------------------------------------

    def _opened_from_thread(self) -> None:
        self._aio.call_soon_threadsafe(self._gate_opened)

    def _gate_opened(self) -> None:
        if self._doorway is not None:
            self._doorway.opened(self.carry_out)
        for child in self._children():
            child._gate_opened()

    # --- child workflows --------------------------------------------------------------------------------

    @property
    def is_here(self) -> bool:
        """Whether this is asked in the run's own event loop."""
        return asyncio.get_running_loop() is self._aio

    @property
    def root(self) -> Loop:
        return self if self.within is None else self.within.loop.root

    def commit_child(self, invocation: Invocation, tick: ChildCommit, *, progress: bool) -> None:
        """`submit` what a child workflow of `invocation` did. Raises LeaseLostError when that has ended."""
        if invocation.closed or self._stopped or self.state.ending is not None:
            raise LeaseLostError(f"step {invocation.work.step}, which ran this workflow, has ended")
        if self._committer is not None:
            # Beside their step they are counted one by one: else one that is stuck would be hidden by
            # the others that get on.
            inner = [
                (sign, f"{tick.work}.{tick.child}.{name}", step and f"{tick.child}.{step}")
                for sign, name, step in tick.flight
            ]
            self._committer.tell(
                [*inner, ("=", str(tick.work), "")] if progress else inner, progress=progress
            )
        self.submit(tick)

    def _children(self) -> list[Loop]:
        """The child workflows that run in this one's steps."""
        begun = [one.children for one in self._open.values() if one.children is not None]
        return [child for children in begun for child in children.running.values()]

    @property
    def waits(self) -> bool:
        """`is_waiting`, for children, too: a step that awaits nothing but children that wait does so itself."""
        return is_waiting(self.state, self._awaits_who_wait)

    def _awaits_who_wait(self, number: int) -> bool:
        invocation = self._open.get(number)
        return invocation is not None and invocation.children is not None and invocation.children.wait

    async def await_child(self, within: Within, awaited: Awaitable[Any]) -> Any:
        """Await something of a child workflow: as long as that is in the engine, so is the step."""
        within.children.awaits += 1
        try:
            self.check_drained()
            return await self.suspend(within.invocation, awaited)
        finally:
            within.children.awaits -= 1

    # --- time -----------------------------------------------------------------------------------------

    def _wake(self, command: Wake) -> None:
        number, key = command.work, command.key
        if key is None:
            self.timers.arm(command.at - self.now(), lambda: self.submit(Due(self.now(), number)))
        else:
            self.timers.arm(
                command.at - self.now(),
                lambda: self.submit(WaitEnded(self.now(), number, key, None)),
                wait=(number, key),
            )

    def _arm_timeout(self) -> None:
        # Not before the first tick: only a takeover knows how long no process was alive.
        self._untimed = False
        if self.timeout is not None and not self._stopped:
            self.timers.arm(self.timeout - self.alive(), self._timed_out)

    def _timed_out(self) -> None:
        steps = self.timed_out_steps = sorted(set(self.active_steps()))
        self.halt("TimedOut", f"Operation timed out after {self.timeout} seconds. Active steps: {steps}")

    # --- the end --------------------------------------------------------------------------------------

    def halt(self, reason: str, message: str, *, event: Event | None = None, resumable: bool = False) -> None:
        """End the run from outside its steps."""
        payload = self.payload(event) if event is not None else None
        self.submit(Halted(self.now(), reason, message, payload, resumable))

    async def drain(self, seconds: float) -> None:
        """Start nothing more; return when no step runs and all is durable. Cancels after `seconds`.

        Returns at once when the run ends here, or has: fenced, nothing of it becomes durable any more.
        """
        if self._stopped:
            return
        self._drained = self._aio.create_future()
        self._start_no_more()
        self.check_drained()
        try:
            await asyncio.wait_for(asyncio.shield(self._drained), seconds)
        except TimeoutError:
            for invocation in self.invocations():
                self._leave_open(invocation)
                if invocation.task is not None:
                    invocation.task.cancel()
            await self.barrier(strict=True)
        self.stop(None, None)

    def _start_no_more(self) -> None:
        self.submit(Drain(self.now()))
        for child in self._children():
            child._start_no_more()

    def _leave_open(self, invocation: Invocation) -> None:
        """Expect nothing more of an invocation whose work stays open, for a successor."""
        invocation.closed = True
        self._open.pop(invocation.work.id, None)
        if invocation.children is not None:
            invocation.children.stop(None)
        self.check_drained()

    def check_drained(self) -> None:
        if self.within is not None:
            self.within.loop.check_drained()
        elif self._drained is not None and not self._drained.done() and self.rests:
            self._drained.set_result(None)

    @property
    def rests(self) -> bool:
        """Whether every invocation waits in the engine, or for children that do, and all is durable."""
        return all(
            invocation.answers or (invocation.children is not None and invocation.children.rest)
            for invocation in self._open.values()
        ) and (self._committer is None or self._committer.idle)

    def stop(self, ending: Ending | None, error: BaseException | None) -> None:
        """Run no more of it in this process: cancel what runs, and tell the host."""
        if self._stopped:
            return
        self._stopped = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self.timers.cancel()
        tasks = []
        for invocation in self.invocations():
            invocation.closed = True
            if invocation.task is not None:
                invocation.task.cancel()
                tasks.append(invocation.task)
        begun = [one.children for one in self.invocations() if one.children is not None]
        children = [task for those in begun for task in those.stop(error)]
        if self.within is not None:
            self.within.children.running.pop(self.within.id, None)
        if self._committer is not None:
            self._committer.give_up(error or LeaseLostError("the run has ended in this process"))
        self.stopping = self._aio.create_task(self._finish_up(tasks, children, ending, error))

    async def _finish_up(
        self,
        tasks: list[asyncio.Task[None]],
        children: list[asyncio.Task[None]],
        ending: Ending | None,
        error: BaseException | None,
    ) -> None:
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CANCEL_GRACE)
            if late:
                log.warning("%d steps did not end in %s s after the run had", len(late), CANCEL_GRACE)
        if self._threads is not None and str(self._threads):
            log.warning(
                "the run has ended here, but not these threads, which can't be cancelled: %s", self._threads
            )
        if children:
            await asyncio.wait(children)  # each ends within its own CANCEL_GRACE
        self._open.clear()
        self._host.ended(ending, error)

    # --- taking up where another process left ---------------------------------------------------------

    def take_over(self, epoch: int) -> None:
        """Run again what was cut off, or what failed if the run had ended; log it.

        Raises what decoding an event of the state raises, before anything is run or logged.
        """
        try:
            self._decode_kept()
        except Exception as error:
            if self.within is None:
                raise
            self.root.stop(None, error)
            return
        self._taken_over = True
        again = Takeover if self.state.ending is None else Reopened
        self.submit(again(self.now(), epoch))

    def _decode_kept(self) -> None:
        """Read the kept events that a step is given from inside its own code: there it would fail the step."""
        state = self.state
        for work in state.works.values():
            for wait in (work.waits or {}).values():
                if wait.event is not None:
                    _ = wait.event.event
        for claims in state.buffers.values():
            for claim in claims:
                _ = claim.event.event

    def collect(
        self, invocation: Invocation, event: Event, expected: Sequence[type[Event]], buffer_id: str
    ) -> list[Event] | None:
        payload = invocation.work.event
        # What becomes durable is the event as it is now; its step may have changed it since it came.
        if self._committer is not None or payload is None or payload.event is not event:
            payload = self.payload(event)
        return self._claims.collect(invocation.work, payload, expected, buffer_id)
