"""The lease: judged by times that are given, and kept by threads that are real but quick."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import pytest

from perdure.engine.gate import Gate
from perdure.errors import StoreError, StoreUnavailableError
from perdure.store.base import Renewed, Reply, Tag
from perdure.store.lease import Act, Lease, LeaseState, Loss, Phase

TTL = 10.0


def held() -> LeaseState:
    return LeaseState(TTL, epoch=5, sent_at=100.0)


def test_a_renewed_lease_asks_for_nothing_but_the_timer() -> None:
    state = held()
    assert state.look(104.9) is Act.NOTHING
    assert state.renewed(103.3, now=103.4) is Act.ARM
    assert state.deadline == 113.3


def test_the_deadline_counts_from_the_sending_and_not_from_the_answer() -> None:
    state = held()
    state.renewed(103.0, now=107.5)
    assert state.deadline == 113.0


def test_at_half_the_lease_no_new_steps_start() -> None:
    state = held()
    assert state.next_look(100.0) == 105.0
    assert state.look(105.0) is Act.HOLD
    assert state.phase is Phase.HOLDING


def test_a_renewal_after_the_hold_lets_steps_start_again() -> None:
    state = held()
    state.look(105.0)
    assert state.renewed(106.0, now=106.1) is Act.OPEN
    assert state.phase is Phase.HELD


def test_a_run_whose_steps_all_wait_in_the_engine_is_parked_before_the_deadline() -> None:
    state = held()
    state.look(105.0)
    assert state.look(109.0) is Act.PARK
    assert state.tried_to_park(True, 109.0) is Act.NOTHING
    assert state.phase is Phase.PARKED
    assert state.look(1000.0) is Act.NOTHING
    assert math.isinf(state.next_look(1000.0))


def test_user_code_under_way_is_asked_again_until_the_deadline_and_then_the_lease_is_lost() -> None:
    state = held()
    assert state.look(109.0) is Act.PARK
    assert state.tried_to_park(False, 109.0) is Act.NOTHING
    assert 109.0 < state.next_look(109.0) <= 109.2
    assert state.look(109.5) is Act.PARK
    assert state.tried_to_park(False, 109.5) is Act.NOTHING
    assert state.next_look(109.95) == 110.0
    assert state.look(110.0) is Act.PARK
    assert state.tried_to_park(False, 110.0) is Act.EXPIRE
    assert state.phase is Phase.LOST


def test_a_step_that_reaches_the_engine_in_time_is_parked_all_the_same() -> None:
    state = held()
    state.look(109.0)
    state.tried_to_park(False, 109.0)
    assert state.look(109.4) is Act.PARK
    state.tried_to_park(True, 109.4)
    assert state.phase is Phase.PARKED


def test_a_parked_run_opens_when_its_lease_is_renewed() -> None:
    state = held()
    state.look(109.0)
    state.tried_to_park(True, 109.0)
    assert state.renewed(160.0, now=160.1) is Act.OPEN
    assert state.deadline == 170.0


def test_a_parked_run_stays_parked_when_the_answer_came_too_late_to_count() -> None:
    state = held()
    state.look(109.0)
    state.tried_to_park(True, 109.0)
    assert state.renewed(160.0, now=166.0) is Act.NOTHING
    assert state.phase is Phase.PARKED


@pytest.mark.parametrize(
    ("reply", "loss"),
    [
        (Reply(Tag.FENCED, 6), Loss.FENCED),
        (Reply(Tag.OUTCOME, 5, b"{}"), Loss.ENDED),
    ],
)
def test_an_answer_that_names_another_holder_or_an_end_loses_the_lease(reply: Reply, loss: Loss) -> None:
    state = held()
    assert state.refused(reply) == (Act.LOSE, loss)
    assert state.renewed(104.0, now=104.1) is Act.NOTHING


@pytest.mark.parametrize("epoch", [4, 5])  # before this epoch was told, and before it was taken
def test_a_store_that_went_back_is_told_the_epoch_again_and_ends_nobody(epoch: int) -> None:
    state = held()
    assert state.refused(Reply(Tag.FENCED, epoch)) == (Act.REACQUIRE, None)
    assert state.phase is Phase.HELD


def test_a_store_without_the_run_ends_nobody_before_the_deadline() -> None:
    state = held()
    assert state.refused(Reply(Tag.NOMETA)) == (Act.NOTHING, None)


# --- the threads around it, with a short lease ------------------------------------------------------


class Renewer:
    """Answers what it is told to; `None` is a store that is away."""

    def __init__(self) -> None:
        self.answer: Renewed | Reply | None = Renewed("Running", "0-0", 1.0)
        self.error: StoreError = StoreUnavailableError("away")
        self.calls = 0

    def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        self.calls += 1
        if self.answer is None:
            raise self.error
        return self.answer

    def close(self) -> None:
        pass


class Timer:
    """Notes at each arming and disarming whether the gate let user code in."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.armed: list[float] = []
        self.open_when_disarmed: list[bool] = []

    def arm(self, seconds: float) -> None:
        self.armed.append(seconds)

    def disarm(self) -> None:
        let_in = self.gate.enter()
        if let_in:
            self.gate.leave()
        self.open_when_disarmed.append(let_in)


class Rig:
    """Its lease was acquired just now; at 0 by a `clock` that is given."""

    def __init__(
        self,
        ttl: float,
        *,
        timer: bool = True,
        judge: bool = True,
        gate: Gate | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.gate = gate or Gate()
        self.renewer = Renewer()
        self.timer = Timer(self.gate)
        self.lost: list[str] = []
        self.renewed = threading.Event()
        self.rolled_back = threading.Event()
        self.lease = Lease(
            self.renewer,
            5,
            "me",
            ttl,
            self.gate,
            acquired_at=0.0 if clock else time.monotonic(),
            clock=clock or time.monotonic,
            on_renewed=lambda *_: self.renewed.set(),
            on_lost=self.lost.append,
            on_rolled_back=self.rolled_back.set,
            timer=self.timer if timer else None,
            judge=judge,
        )

    def __enter__(self) -> Rig:
        self.lease.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.stop()


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < give_up, "it never came to hold"
        time.sleep(0.005)


def test_the_timer_is_armed_at_the_start_and_by_each_renewal() -> None:
    with Rig(0.3) as rig:
        until(lambda: len(rig.timer.armed) >= 3)
        assert all(0 < seconds <= 0.3 for seconds in rig.timer.armed)
    assert not rig.lost


def test_no_user_code_can_begin_between_parking_and_the_disarming_of_the_timer() -> None:
    rig = Rig(0.2)
    rig.renewer.answer = None
    with rig:
        until(lambda: rig.lease.phase is Phase.PARKED)
        until(lambda: bool(rig.timer.open_when_disarmed))
        assert rig.timer.open_when_disarmed[0] is False
        assert not rig.gate.enter()
        rig.renewer.answer = Renewed("Running", "0-0", 2.0)
        until(rig.gate.enter)
        assert rig.timer.armed[-1] > 0
    assert not rig.lost


def test_in_a_program_user_code_under_way_at_the_deadline_loses_the_lease_and_nothing_is_killed() -> None:
    rig = Rig(0.2, timer=False)
    rig.gate.enter()
    rig.renewer.answer = None
    with rig:
        until(lambda: bool(rig.lost))
        assert rig.lost == [Loss.EXPIRED]
        calls = rig.renewer.calls
        time.sleep(0.1)
        assert rig.renewer.calls == calls  # nothing is renewed after it
        assert not rig.gate.enter()


class RestsAfterTheFirstTry(Gate):
    def park(self) -> bool:
        parked = super().park()
        if not parked:
            self.leave()
        return parked


def test_user_code_that_comes_to_rest_after_the_judgement_began_is_parked_in_time() -> None:
    # Shortly before its deadline, for as long as the threads take.
    rig = Rig(1.0, gate=RestsAfterTheFirstTry(), clock=lambda: 0.92)
    rig.gate.enter()
    rig.renewer.answer = None
    with rig:
        until(lambda: rig.lease.phase in (Phase.PARKED, Phase.LOST))
        assert rig.lease.phase is Phase.PARKED


def test_a_fenced_lease_is_told_once_and_shuts_the_gate() -> None:
    rig = Rig(0.15)
    rig.renewer.answer = Reply(Tag.FENCED, 6)
    with rig:
        until(lambda: bool(rig.lost))
        assert not rig.gate.enter()
        time.sleep(0.1)
    assert rig.lost == [Loss.FENCED]


def test_an_answer_that_nobody_expected_does_not_end_the_renewing() -> None:
    rig = Rig(0.6)
    rig.renewer.answer, rig.renewer.error = None, StoreError("WRONGTYPE")
    with rig:
        until(lambda: rig.lease.phase is Phase.PARKED)
        rig.renewer.answer = Renewed("Running", "0-0", 1.0)
        until(lambda: rig.lease.phase is Phase.HELD)


def test_a_rolled_back_store_asks_for_the_run_again() -> None:
    rig = Rig(0.15)
    rig.renewer.answer = Reply(Tag.FENCED, 4)
    with rig:
        assert rig.rolled_back.wait(5)
        assert not rig.lost


def test_with_judgement_off_a_fenced_runner_goes_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(0.15, judge=False)
    rig.gate.enter()
    rig.renewer.answer = Reply(Tag.FENCED, 6)
    with rig:
        until(lambda: rig.renewer.calls >= 2)
        time.sleep(0.2)
    assert not rig.lost
    assert not rig.timer.armed
    assert "NOT judged" in caplog.text
