"""The lease on a run: renewed by a thread of its own, judged by another, so that no user code acts past it.

Times are seconds of the monotonic clock. The deadline counts from the *sending* of the last renewal
that succeeded: the store can't have begun to count later than that.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Protocol

from perdure.engine.gate import Gate
from perdure.errors import StoreError
from perdure.store.base import Renewed, Renewer, Reply, Tag

log = logging.getLogger("perdure.lease")

RENEW_PART = 1 / 3  # of the TTL between two renewals
TIMEOUT_PART = 1 / 6  # for each connect, send and reply
HOLD_PART = 1 / 2  # without a renewal, no new steps
JUDGE_PART = 0.9  # before the deadline, so that parking is done when the kernel's timer is due
RETRY_PART = 1 / 12


class Loss(StrEnum):
    """Why the lease is gone for good. A plain string to whoever wants one."""

    FENCED = "fenced"  # another epoch or holder has the run
    ENDED = "ended"  # the run has its outcome
    EXPIRED = "expired"  # not renewed in time, with user code under way


class Phase(Enum):
    HELD = auto()
    HOLDING = auto()  # in doubt: no new steps
    PARKED = auto()  # past the deadline, and no user code runs until it is renewed
    LOST = auto()


class Act(Enum):
    """What the rim has to do now."""

    NOTHING = auto()
    HOLD = auto()
    PARK = auto()  # try to; then say `parked`
    EXPIRE = auto()
    ARM = auto()  # the kernel's timer, anew
    OPEN = auto()  # arm, then open the gate
    LOSE = auto()
    REACQUIRE = auto()  # the store went back to before this epoch was told or taken


@dataclass(slots=True)
class LeaseState:
    """The lease as a state machine: times are given, effects are returned."""

    ttl: float
    epoch: int
    sent_at: float
    phase: Phase = Phase.HELD

    @property
    def deadline(self) -> float:
        return self.sent_at + self.ttl

    def next_look(self, now: float) -> float:
        """When `look` has something to say, if nothing comes in before."""
        if self.phase is Phase.HELD:
            return self.sent_at + HOLD_PART * self.ttl
        if self.phase is Phase.HOLDING:
            judge_at = self.sent_at + JUDGE_PART * self.ttl
            return judge_at if now < judge_at else min(now + self.ttl / 100, max(self.deadline, now))
        return math.inf

    def look(self, now: float) -> Act:
        """What the time alone asks for."""
        if self.phase in (Phase.PARKED, Phase.LOST):
            return Act.NOTHING
        if now >= self.sent_at + JUDGE_PART * self.ttl:
            self.phase = Phase.HOLDING
            return Act.PARK
        if self.phase is Phase.HELD and now >= self.sent_at + HOLD_PART * self.ttl:
            self.phase = Phase.HOLDING
            return Act.HOLD
        return Act.NOTHING

    def tried_to_park(self, parked: bool, now: float) -> Act:
        """The answer of the gate to PARK: whether no user code is inside."""
        if parked:
            self.phase = Phase.PARKED
            return Act.NOTHING
        if now >= self.deadline:
            self.phase = Phase.LOST
            return Act.EXPIRE
        return Act.NOTHING

    def renewed(self, sent_at: float, now: float) -> Act:
        """A renewal that was sent at `sent_at` succeeded."""
        if self.phase is Phase.LOST or sent_at <= self.sent_at:
            return Act.NOTHING
        self.sent_at = sent_at
        if now < sent_at + HOLD_PART * self.ttl:
            was, self.phase = self.phase, Phase.HELD
            return Act.ARM if was is Phase.HELD else Act.OPEN
        # The answer took so long that the lease is in doubt again: a parked run stays parked.
        return Act.NOTHING if self.phase is Phase.PARKED else Act.ARM

    def refused(self, reply: Reply) -> tuple[Act, Loss | None]:
        """A renewal was answered, but not with a renewal."""
        if self.phase is Phase.LOST:
            return Act.NOTHING, None
        if reply.tag is Tag.FENCED and reply.number <= self.epoch:
            # A store that lost its last second: this epoch is the newer one and must be told again,
            # or the fresh runner would end and leave the run to its zombie. The same epoch too: the
            # store may have forgotten the acquire alone, or an operator told it the epoch first.
            # Whether another has it, the acquire's answer says.
            return Act.REACQUIRE, None
        if reply.tag in (Tag.FENCED, Tag.OUTCOME):
            self.phase = Phase.LOST
            return Act.LOSE, Loss.FENCED if reply.tag is Tag.FENCED else Loss.ENDED
        # NOMETA: the store was wiped, or isn't the one it was. The deadline decides.
        return Act.NOTHING, None


class DeadlineTimer(Protocol):
    """Ends the process at a time, whatever its threads do."""

    def arm(self, seconds: float) -> None:
        """End the process `seconds` from now; replaces what was armed before."""
        ...

    def disarm(self) -> None: ...


class Lease:
    """Keeps one acquired run's lease, from `start` to `stop`.

    on_renewed, on_lost and on_rolled_back are called from this object's threads: hand over to the
    event loop there. on_lost is called at most once; after it nothing is renewed. `timer` is None
    for a program that must not be ended: there on_lost(EXPIRED) is all that happens.
    judge=False leaves the fence as the only protection; it is there for tests of the fence.
    """

    def __init__(
        self,
        renewer: Renewer,
        epoch: int,
        holder: str,
        ttl: float,
        gate: Gate,
        *,
        acquired_at: float,
        on_renewed: Callable[[Renewed, float], object],
        on_lost: Callable[[str], object],
        on_rolled_back: Callable[[], object] = lambda: None,
        timer: DeadlineTimer | None = None,
        judge: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renewer = renewer
        self._epoch = epoch
        self._holder = holder
        self._ttl = ttl
        self._gate = gate
        self._state = LeaseState(ttl, epoch, acquired_at)
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._on_rolled_back = on_rolled_back
        self._timer = timer if judge else None
        self._judges = judge
        self._clock = clock
        self._changed = threading.Condition()
        self._stopped = False
        # Two threads: a renewal can hang in a name's resolution, which no timeout bounds.
        self._threads = [threading.Thread(target=self._renew_all, name="perdure-lease-renew", daemon=True)]
        if judge:
            self._threads.append(
                threading.Thread(target=self._judge_all, name="perdure-lease-judge", daemon=True)
            )
        else:
            log.warning("the lease is NOT judged in this process: only the store's fence protects the run")

    @staticmethod
    def timeout(ttl: float) -> float:
        """The renewer's timeout that fits a lease of `ttl`."""
        return ttl * TIMEOUT_PART

    @property
    def phase(self) -> Phase:
        return self._state.phase

    def start(self) -> None:
        with self._changed:
            self._arm()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more renewals, no more judgement; the lease itself is left to expire or to `release`.

        The timer stays armed: threads of the user's may run until the process is gone.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=0.2)  # one that hangs in a connection ends with its process

    # --- renewing -------------------------------------------------------------------------------------

    def _renew_all(self) -> None:
        pause = self._state.sent_at + self._ttl * RENEW_PART - self._clock()
        failing = False
        try:
            while self._pause(pause):
                sent_at = self._clock()
                try:
                    answer = self._renewer.renew(self._epoch, self._holder, int(self._ttl * 1000))
                except StoreError as error:
                    # Of any kind: without this thread a parked run would never wake, nor hear of its fence.
                    if not failing:
                        log.warning("the lease can't be renewed, trying on: %s", error)
                    failing = True
                    pause = self._retry_pause()
                    continue
                if self._take(answer, sent_at):
                    if failing:
                        log.info("the lease is renewed again")
                    failing = False
                    pause = sent_at + self._ttl * RENEW_PART - self._clock()
                else:
                    pause = self._retry_pause()
        finally:
            self._renewer.close()

    def _retry_pause(self) -> float:
        # Not all at once: a fleet that lost its store comes back together.
        return min(1.0, self._ttl * RETRY_PART) * random.uniform(0.5, 1.0)

    def _pause(self, seconds: float) -> bool:
        """Wait; whether to go on renewing."""
        with self._changed:
            self._changed.wait_for(lambda: self._over, timeout=max(0.0, seconds))
            return not self._over

    @property
    def _over(self) -> bool:
        return self._stopped or self._state.phase is Phase.LOST

    def _take(self, answer: Renewed | Reply, sent_at: float) -> bool:
        """Whether `answer` renewed the lease."""
        if isinstance(answer, Renewed):
            with self._changed:
                if self._over:
                    return False
                act = self._state.renewed(sent_at, self._clock())
                if act in (Act.ARM, Act.OPEN):
                    self._arm()
                if act is Act.OPEN:
                    self._gate.open()
                self._changed.notify_all()
            self._on_renewed(answer, sent_at)
            return True
        if not self._judges:
            log.warning("the lease was refused (%s) and nobody judges it: going on", answer.tag)
            return False
        with self._changed:
            if self._stopped:
                return False
            act, loss = self._state.refused(answer)
            if act is Act.LOSE:
                self._gate.hold()
            self._changed.notify_all()
        if loss is not None:
            log.error("the lease is lost: %s (the store is at epoch %d)", loss, answer.number)
            self._on_lost(loss)
        elif act is Act.REACQUIRE:
            log.warning("the store went back to epoch %d; this is %d", answer.number, self._epoch)
            self._on_rolled_back()
        else:
            log.warning("the lease was not renewed: %s", answer.tag)
        return False

    # --- judging --------------------------------------------------------------------------------------

    def _judge_all(self) -> None:
        expired = False
        with self._changed:
            while not self._over:
                expired = self._judge() is Act.EXPIRE
                now = self._clock()
                wake = self._state.next_look(now)
                if not self._over:
                    self._changed.wait(None if math.isinf(wake) else max(0.0, wake - now))
        if expired:
            log.error("the lease expired with user code under way")
            self._on_lost(Loss.EXPIRED)

    def _judge(self) -> Act:
        act = self._state.look(self._clock())
        if act is Act.HOLD:
            log.warning("no renewal for half the lease: no new steps until there is one")
            self._gate.hold()
        if act is not Act.PARK:
            return act
        parked = self._gate.park()
        act = self._state.tried_to_park(parked, self._clock())
        if parked:
            # The gate was shut first: from here to the disarming no user code can have begun.
            if self._timer is not None:
                self._timer.disarm()
            log.warning("parked: every step waits in the engine until the lease is renewed")
        return act

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.arm(self._state.deadline - self._clock())
