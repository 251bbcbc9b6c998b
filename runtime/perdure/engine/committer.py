"""Makes ticks durable: gathers what is ready together into one commit, and lets its commands out after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from perdure.engine.graph import Graph
from perdure.engine.journal import Batch, FlightChange, Journal
from perdure.engine.model import (
    Codec,
    Command,
    Drain,
    Ending,
    External,
    Failed,
    Finish,
    Halted,
    Publish,
    Refused,
    Reopened,
    Resume,
    Returned,
    Start,
    State,
    Takeover,
    Tick,
    WaitBegan,
    Wrote,
)
from perdure.engine.waits import would_wake
from perdure.errors import CheckpointTooLargeError

RELAXED_TICKS = 64  # how much a Relaxed run may have at risk
RELAXED_SECONDS = 0.1
MAX_NAMED = 8  # of steps, and of event types, in a summary

_ALWAYS_STRICT = (Halted, Drain, Takeover, Reopened, WaitBegan, External, Refused)
_BEGIN = (Start, Resume)
_SHOWN = (Publish, Finish)  # to the outside, which can't be taken back


class _Summary(msgspec.Struct, rename="camel", gc=False):
    """What the run's status shows of its progress."""

    completed_steps: int
    active_steps: list[str]  # at most MAX_NAMED, as `wakes`
    pending_events: int
    last_step: str
    last_progress_time: float
    replayed_steps: int
    waiting: bool
    wakes: list[str]


_encode_summary = msgspec.json.Encoder().encode


class Engine(Protocol):
    """What the committer needs of the loop."""

    graph: Graph

    def carry_out(self, command: Command) -> None: ...
    def stop(self, ending: Ending | None, error: BaseException | None) -> None: ...
    def check_drained(self) -> None: ...
    @property
    def active(self) -> int: ...
    @property
    def waits(self) -> bool: ...
    def active_steps(self, most: int | None = None) -> list[str]: ...


class Committer:
    """Ticks in their order, one commit at a time. Strict: commands wait for the commit of their tick.

    Relaxed: they go ahead while at most RELAXED_TICKS or RELAXED_SECONDS are at risk, and wait
    beyond that.
    """

    def __init__(
        self,
        state: State,
        codec: Codec,
        journal: Journal,
        engine: Engine,
        *,
        outcome: Callable[[Ending], bytes],
        relaxed: bool,
    ) -> None:
        self._state = state
        self._codec = codec
        self._journal = journal
        self._engine = engine
        self._outcome = outcome
        self._relaxed = relaxed
        self._aio = asyncio.get_running_loop()
        self._ticks: list[Tick] = []
        self._commands: list[Command] = []
        self._flight: list[FlightChange] = []
        self._progress = False
        self._inbox_ack = ""
        self._published: list[bytes] = []
        self._strict = False
        self._completed = 0
        self._waiting: list[asyncio.Future[None]] = []  # for the next commit
        self._in_flight: list[asyncio.Future[None]] = []  # for the one that is on its way
        self._held = False  # whether something waits for the commit on its way, or must: it is strict
        self._sent = 0  # ticks in the commit that is on its way
        self._first_pending = 0.0  # when the first of `_ticks` came
        self._first_sent: float | None = None  # the same of those on their way
        self._task: asyncio.Task[None] | None = None
        self._pressed: asyncio.Future[None] | None = None  # a Relaxed commit that waits for more

    @property
    def idle(self) -> bool:
        """Whether all that was added is durable."""
        return not self._sent and not self._ticks

    def add(self, tick: Tick, commands: Sequence[Command]) -> Sequence[Command]:
        """Take a tick; returns the commands that may be carried out at once."""
        self._note(tick, commands)
        if self._relaxed and not self._ticks:
            self._first_pending = self._aio.time()
        self._ticks.append(tick)
        now: Sequence[Command] = ()
        if self._may_run_ahead(tick, commands):
            now = commands
        else:
            self._commands.extend(commands)
        if self._task is None:
            self._task = self._aio.create_task(self._commit_all())
        else:
            self._press()
        return now

    def tell(self, flight: Sequence[FlightChange], *, progress: bool = False) -> None:
        """Have the store told of child workflows, too, with the next tick."""
        self._flight += flight
        self._progress = self._progress or progress

    def waiter(self, *, strict: bool) -> asyncio.Future[None] | None:
        """Resolves when all that was added is durable; None when there is nothing to wait for."""
        if self.idle or (not strict and self._relaxed and self._within_risk()):
            return None
        waiter = self._aio.create_future()
        (self._waiting if self._ticks else self._in_flight).append(waiter)
        self._press()
        return waiter

    def give_up(self, error: BaseException) -> None:
        """Nothing more becomes durable here: whoever waits for it gets `error`."""
        for waiter in [*self._waiting, *self._in_flight]:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # a step that was cancelled meanwhile doesn't ask for it

    async def _commit_all(self) -> None:
        try:
            while self._ticks:
                if self._relaxed:
                    await self._gather()
                ticks, self._ticks = self._ticks, []
                commands, self._commands = self._commands, []
                self._in_flight, self._waiting = self._waiting, []
                self._held = bool(commands) or self._strict
                self._sent, self._first_sent = len(ticks), self._first_pending
                try:
                    await self._journal.commit(self._batch(ticks))
                except CheckpointTooLargeError as error:
                    await self._end_too_large(error)
                    return
                self._held, self._sent, self._first_sent = False, 0, None
                for waiter in self._in_flight:
                    if not waiter.done():
                        waiter.set_result(None)
                for command in commands:
                    self._engine.carry_out(command)
                if not self._ticks:
                    # What these begin is often done at once: it is the next commit, without a task of its own.
                    await asyncio.sleep(0)
        except BaseException as error:
            self._engine.stop(None, error)
        finally:
            self._task, self._sent = None, 0
            self._engine.check_drained()

    async def _gather(self) -> None:
        """Let more come together, until something waits for what is there or half of the risk is taken."""
        if self._pressing():
            return
        self._pressed = self._aio.create_future()
        await asyncio.wait([self._pressed], timeout=RELAXED_SECONDS / 10)
        self._pressed = None

    def _press(self) -> None:
        if self._pressed is not None and not self._pressed.done() and self._pressing():
            self._pressed.set_result(None)

    def _pressing(self) -> bool:
        return bool(self._waiting or self._commands) or len(self._ticks) >= RELAXED_TICKS // 2

    def _batch(self, ticks: list[Tick]) -> Batch:
        state = self._state
        flight, self._flight = self._flight, []
        progress, self._progress = self._progress, False
        inbox_ack, self._inbox_ack = self._inbox_ack, ""
        published, self._published = self._published, []
        strict, self._strict = self._strict, False
        completed, self._completed = self._completed, 0
        return Batch(
            payload=self._codec.encode_ticks(ticks),
            progress=progress,
            flight=flight,
            summary=self._summary(),
            outcome=self._outcome(state.ending) if state.ending is not None else None,
            published=published,
            snapshot=self._codec.encode_state(state) if self._journal.wants_snapshot else None,
            inbox_ack=inbox_ack,
            strict=strict or bool(published) or state.ending is not None,
            completed=completed,
        )

    def _note(self, tick: Tick, commands: Sequence[Command]) -> None:
        """What the store is told beside the record itself: who is in flight, and whether work got on."""
        if isinstance(tick, Returned):
            self._flight.append(("-", str(tick.work), ""))
            self._progress = True
            self._completed += 1
        elif isinstance(tick, Failed):
            if tick.retry_at is None:
                self._flight.append(("-", str(tick.work), ""))
        elif isinstance(tick, Wrote):
            if tick.work:
                self._flight.append(("=", str(tick.work), ""))
                self._progress = True
        elif isinstance(tick, _ALWAYS_STRICT):
            self._strict = True
            if isinstance(tick, External | Refused):
                # They leave the inbox by the commit that has them: neither lost nor taken twice.
                self._inbox_ack = tick.inbox or self._inbox_ack
            elif isinstance(tick, WaitBegan):
                # Who waits in the engine runs no code that could bring the process down.
                self._flight.append(("-", str(tick.work), ""))
        for command in commands:
            if isinstance(command, _BEGIN):
                self._flight.append(("+", str(command.work.id), command.work.step))
            elif isinstance(command, Publish):
                self._published.append(command.event.data)

    def _within_risk(self) -> bool:
        """Whether what isn't durable, on its way or not, is within the bound."""
        first = self._first_pending if self._first_sent is None else self._first_sent
        at_risk = len(self._ticks) + self._sent
        return at_risk <= RELAXED_TICKS and self._aio.time() - first < RELAXED_SECONDS

    def _may_run_ahead(self, tick: Tick, commands: Sequence[Command]) -> bool:
        # Nothing overtakes commands that have to wait: what they begin was there first. Nor a tick that is
        # strict: an event from outside that was queued without a command must be durable before a step has it.
        if not self._relaxed or self._commands or self._held or self._strict:
            return False
        for command in commands:
            if isinstance(command, _SHOWN):
                return False
        return self._within_risk()

    def _summary(self) -> bytes:
        state = self._state
        # Not all their names: thousands may be waiting, and this is for each commit.
        active = self._engine.active
        waiting = self._engine.waits
        return _encode_summary(
            _Summary(
                completed_steps=state.completed,
                active_steps=self._engine.active_steps(MAX_NAMED),
                pending_events=max(0, len(state.works) - active),
                last_step=state.last_step,
                last_progress_time=state.progressed_at or state.last_time,
                replayed_steps=state.replayed,
                waiting=waiting,
                wakes=would_wake(self._engine.graph, state)[:MAX_NAMED] if waiting else [],
            )
        )

    async def _end_too_large(self, error: CheckpointTooLargeError) -> None:
        """What is over the limit was not sent; in its place the run's end is committed."""
        halted = Halted(time=self._state.last_time, reason="CheckpointTooLarge", message=str(error))
        ending = Ending(reason=halted.reason, message=halted.message)
        self._state.ending = ending
        await self._journal.commit(
            Batch(
                payload=self._codec.encode_ticks([halted]),
                summary=self._summary(),
                outcome=self._outcome(ending),
            )
        )
        self._engine.stop(ending, None)
