"""Each row of the table of decisions, by what must hold of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from perdure.control.actions import (
    Action,
    AddFinalizer,
    AdvanceEpoch,
    CleanStore,
    CreatePod,
    Decision,
    DeletePod,
    DeleteRun,
    Finish,
    InitStore,
    RemoveFinalizer,
    Requeue,
    SetDesired,
    SetStatus,
)
from perdure.control.api import WorkflowRunSpec
from perdure.control.case import Case
from perdure.control.decide import decide
from perdure.control.observation import Observation, Pod, PodState, StoreState, StoreView
from perdure.control.outcome import Outcome, Summary, encode_outcome, encode_summary
from perdure.control.status import (
    Attempt,
    EndRequest,
    LastCheckpoint,
    Phase,
    PodRef,
    StoreTrouble,
    WorkflowRunStatus,
)
from perdure.control.transitions import pod_refused
from perdure.store.base import InFlight, Lease, Meta
from perdure.store.durability import NOT_TOLD, Doubt

T = TypeVar("T")
NOW = 1_700_000_000.0


def spec(**fields: Any) -> WorkflowRunSpec:
    return WorkflowRunSpec.model_validate({"workflow": {"entrypoint": "docs.flow:workflow"}, **fields})


def status(**fields: Any) -> WorkflowRunStatus:
    """A run at its second attempt and epoch 2, healthy so far."""
    known: dict[str, Any] = {
        "epoch": 2,
        "attempt": 2,
        "store_id": "store-1",
        "start_time": NOW - 500,
        "observed_generation": 1,
        "attempts": [
            Attempt(attempt=2, epoch=2, start=NOW - 100, predecessor_end=NOW - 110, start_step_seq=5)
        ],
        "progress_seq": 7,
        "pod_ref": PodRef(name="run-2", uid="pod-2"),
        "cause": "Crashed",
        "cause_count": 1,
    }
    live = WorkflowRunStatus(**{**known, **fields})
    return (
        live.with_condition("Accepted", "True", "Accepted", now=NOW - 500)
        .with_condition("StoreReady", "True", "Ready", now=NOW - 500)
        .with_condition("StoreDurable", "True", "EveryWriteSynced", now=NOW - 500)
        .with_condition("Running", "True", "Running", now=NOW - 90)
        .with_condition("Finished", "False", "Live", now=NOW - 500)
        .with_condition("Succeeded", "Unknown", "Live", now=NOW - 500)
    )


def meta(**fields: Any) -> Meta:
    return Meta(**{"epoch": 2, "holder": "h2", "seq": 7, "step_seq": 7, **fields})


def pod(epoch: int = 2, state: PodState = PodState.RUNNING, **fields: Any) -> Pod:
    known: dict[str, Any] = {"since": NOW - 30, "node": "worker-1"}
    return Pod(name=f"run-{epoch}", uid=f"pod-{epoch}", epoch=epoch, state=state, **{**known, **fields})


def dead(exit_code: int, **fields: Any) -> Pod:
    return pod(state=PodState.FINISHED, exit_code=exit_code, finished_at=NOW - 3, **fields)


LEASE = Lease(2, "h2", 7.0)


def store(meta_: Meta | None = None, lease: Lease | None = None, **fields: Any) -> StoreView:
    known: dict[str, Any] = {
        "store_id": "store-1",
        "trouble_until": NOW - 1000,
        "doubts": (),
        "store_now": NOW,
    }
    return StoreView(StoreState.READY, meta=meta_, lease=lease, **{**known, **fields})


def grace(view: StoreView) -> StoreView:
    return replace(view, state=StoreState.GRACE, until=NOW + 6, trouble_until=NOW - 4)


AWAY = StoreView(StoreState.UNREACHABLE, until=NOW - 5, trouble_until=NOW, message="connection refused")


def look(view: StoreView, *pods: Pod, **fields: Any) -> Observation:
    return Observation(store=view, pods=pods, **fields)


def written(decision: Decision) -> WorkflowRunStatus:
    found = [action.status for action in decision.actions if isinstance(action, SetStatus)]
    assert len(found) == 1, f"{len(found)} status writes in {decision}"
    status_: WorkflowRunStatus = found[0]
    return status_


def told(decision: Decision) -> list[str]:
    return [
        event.reason
        for action in decision.actions
        if isinstance(action, SetStatus)
        for event in action.events
    ]


def kinds(decision: Decision) -> list[type[Action]]:
    return [type(action) for action in decision.actions]


def one(decision: Decision, kind: type[T]) -> T:
    found = [action for action in decision.actions if isinstance(action, kind)]
    assert len(found) == 1, f"{len(found)} {kind.__name__} in {decision}"
    return found[0]


def wait(decision: Decision) -> float:
    last = decision.actions[-1]
    assert isinstance(last, Requeue)
    return last.after


# --- deletion -------------------------------------------------------------------------------------


def test_row_1_a_deleted_run_without_our_finalizer_is_left_alone() -> None:
    got = decide(spec(), status(), look(AWAY, deletion_time=NOW, finalizer=False), NOW)
    assert got == Decision(1, ())


def test_row_2_deletion_fences_then_cleans_then_lets_go() -> None:
    got = decide(spec(), status(), look(store(meta(), LEASE), pod(), deletion_time=NOW), NOW)
    assert got.row == 2
    assert kinds(got) == [AdvanceEpoch, DeletePod, CleanStore, RemoveFinalizer]
    assert one(got, AdvanceEpoch) == AdvanceEpoch(3, "Deleted", deleted=True)
    assert [event.reason for event in one(got, RemoveFinalizer).events] == ["StateRemoved"]


def test_row_2_retained_state_stays_in_the_store() -> None:
    got = decide(spec(stateRetention="Retain"), status(), look(store(meta()), deletion_time=NOW), NOW)
    assert CleanStore not in kinds(got)
    assert [event.reason for event in one(got, RemoveFinalizer).events] == ["StateRetained"]


def test_row_3_deletion_waits_for_a_store_that_is_away_and_says_so_once() -> None:
    seen = look(AWAY, pod(), deletion_time=NOW - 60)
    got = decide(spec(), status(), seen, NOW)
    assert got.row == 3
    assert kinds(got) == [DeletePod, SetStatus, Requeue]
    assert told(got) == ["CleanupWaiting"]
    again = decide(spec(), written(got), seen, NOW + 5)
    assert told(again) == []


@pytest.mark.parametrize(
    ("since", "terminating", "store_id", "events"),
    [
        (601, False, "store-1", ["StateLeftBehind"]),
        (1, True, "store-1", ["StateLeftBehind"]),
        (1, False, "", []),
    ],
)
def test_row_4_deletion_gives_the_store_up(
    since: float, terminating: bool, store_id: str, events: list[str]
) -> None:
    seen = look(AWAY, pod(), deletion_time=NOW - since, namespace_terminating=terminating)
    got = decide(spec(), status(store_id=store_id), seen, NOW)
    assert got.row == 4
    assert kinds(got) == [DeletePod, RemoveFinalizer]
    assert [event.reason for event in one(got, RemoveFinalizer).events] == events


# --- over -----------------------------------------------------------------------------------------


def test_row_6_a_run_that_is_over_keeps_the_logs_of_two_attempts_and_nothing_that_runs() -> None:
    pods = [pod(1, PodState.FINISHED), pod(2, PodState.FINISHED), pod(3, PodState.RUNNING)]
    over = status(completion_time=NOW - 10)
    got = decide(spec(), over, look(store(meta()), *pods), NOW)
    assert [action.uid for action in got.actions if isinstance(action, DeletePod)] == ["pod-1"]
    assert wait(got) == 20
    late = decide(spec(), over, look(store(meta()), *pods), NOW + 20)
    assert [action.uid for action in late.actions if isinstance(action, DeletePod)] == ["pod-1", "pod-3"]


def test_row_6_a_finished_run_is_deleted_when_its_time_to_live_has_passed() -> None:
    over, short = status(completion_time=NOW - 10), spec(ttlSecondsAfterFinished=60)
    assert wait(decide(short, over, look(store(meta())), NOW)) == 50
    assert kinds(decide(short, over, look(store(meta())), NOW + 50)) == [DeleteRun]


def test_row_6_nothing_else_ever_happens_to_a_run_that_is_over() -> None:
    over = status(completion_time=NOW - 100)
    cancelled = spec(desiredState="Cancelled")
    for view in (store(meta(outcome=b"{}")), store(None), AWAY, store(meta(epoch=9))):
        assert decide(cancelled, over, look(view), NOW) == Decision(6, ())


# --- acceptance -----------------------------------------------------------------------------------


def test_row_7a_the_finalizer_comes_before_anything_in_the_store() -> None:
    got = decide(spec(), WorkflowRunStatus(), look(store(), finalizer=False), NOW)
    assert (got.row, kinds(got)) == (7, [AddFinalizer, Requeue])


def test_row_7b_a_refused_spec_ends_the_run_and_says_why() -> None:
    got = decide(spec(), WorkflowRunStatus(), look(AWAY, refused="spec.input: is too large"), NOW)
    new = written(got)
    assert (got.row, new.phase) == (7, Phase.FAILED)
    accepted, finished = new.condition("Accepted"), new.condition("Finished")
    assert accepted is not None
    assert (accepted.status, accepted.reason, accepted.message) == (
        "False",
        "InvalidSpec",
        "spec.input: is too large",
    )
    assert finished is not None
    assert finished.status == "True"
    assert told(got) == ["InvalidSpec"]


def test_row_7c_a_run_cancelled_before_it_began_never_begins() -> None:
    got = decide(spec(desiredState="Cancelled"), WorkflowRunStatus(), look(store()), NOW)
    assert (got.row, written(got).phase) == (7, Phase.CANCELLED)
    assert InitStore not in kinds(got)


# --- the store ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "reason"),
    [(AWAY, "StoreUnavailable"), (replace(AWAY, state=StoreState.WRONG), "WrongStore")],
)
@pytest.mark.parametrize("pods", [(), (pod(),), (dead(1),), (pod(state=PodState.REJECTED),)])
def test_row_8_while_the_store_is_away_nobody_is_replaced_or_ended(
    view: StoreView, reason: str, pods: tuple[Pod, ...]
) -> None:
    got = decide(spec(), status(), look(view, *pods), NOW)
    assert (got.row, kinds(got)) == (8, [SetStatus, Requeue])
    assert told(got) == [reason]
    again = decide(spec(), written(got), look(view, *pods), NOW + 20)
    assert SetStatus not in kinds(again), "one write and one Event for one outage"
    assert wait(got) == 1
    assert wait(again) == 10


def test_row_8_a_dead_pod_is_noted_though_nothing_is_done() -> None:
    new = written(decide(spec(), status(), look(AWAY, dead(137)), NOW))
    assert new.attempts[-1].exit_code == 137
    assert new.attempts[-1].end == NOW - 3


def test_row_8_a_cancelled_runs_code_stops_though_the_store_is_away() -> None:
    cancelled = spec(desiredState="Cancelled", cancelGracePeriodSeconds=30)
    first = decide(cancelled, status(), look(AWAY, pod()), NOW)
    assert DeletePod not in kinds(first)
    asked = written(first)
    assert asked.end_requested == EndRequest(reason="Cancelled", time=NOW)
    assert DeletePod in kinds(decide(cancelled, asked, look(AWAY, pod()), NOW + 30))
    assert DeletePod not in kinds(decide(cancelled, asked, look(AWAY, dead(1)), NOW + 30))


def test_row_9_missing_state_is_believed_only_at_the_second_look() -> None:
    first = decide(spec(), status(), look(store(None), pod()), NOW)
    assert (first.row, kinds(first), told(first)) == (9, [SetStatus, Requeue], ["StateMissing"])
    seen = written(first)
    assert kinds(decide(spec(), seen, look(store(None), pod()), NOW + 9)) == [Requeue]
    assert kinds(decide(spec(), seen, look(grace(store(None)), pod()), NOW + 60)) == [Requeue]
    lost = decide(spec(), seen, look(store(None), pod()), NOW + 10)
    assert kinds(lost) == [SetStatus, DeletePod, Requeue]
    assert written(lost).condition("Succeeded").reason == "StateLost"  # type: ignore[union-attr]


def test_row_9_an_outage_before_does_not_shorten_the_second_look() -> None:
    away = written(decide(spec(), status(), look(AWAY, pod()), NOW - 300))
    got = decide(spec(), away, look(store(None), pod()), NOW)
    assert kinds(got) == [SetStatus, Requeue]


def test_row_10_the_first_state_is_made_before_the_status_says_so() -> None:
    got = decide(spec(), WorkflowRunStatus(), look(store(None), code={"image": "x"}), NOW)
    assert (got.row, kinds(got)) == (10, [InitStore, SetStatus, Requeue])
    new = written(got)
    assert (new.store_id, new.epoch, new.attempt, new.code) == ("store-1", 1, 1, {"image": "x"})
    assert (told(got), new.phase) == (["Accepted"], Phase.PENDING)


def test_row_10_a_status_that_was_lost_takes_over_the_epoch_of_the_store() -> None:
    got = decide(spec(), WorkflowRunStatus(), look(store(meta(epoch=4))), NOW)
    assert kinds(got) == [SetStatus, Requeue]
    assert (written(got).epoch, written(got).attempt) == (4, 4)


@pytest.mark.parametrize(
    ("found", "replicas", "expected"),
    [
        ((NOT_TOLD,), 0, ("Unknown", "NotTold", NOT_TOLD.message)),
        ((Doubt("EvictsKeys", "set noeviction"),), 0, ("False", "EvictsKeys", "set noeviction")),
        ((Doubt("EvictsKeys", "set noeviction"),), 9, ("False", "EvictsKeys", "set noeviction")),
        (
            (Doubt("SplitBrainPossible", "set it", settled_by=1),),
            0,
            ("False", "SplitBrainPossible", "set it"),
        ),
        ((Doubt("SplitBrainPossible", "set it", settled_by=1),), 1, ("True", "EveryWriteSynced", "")),
    ],
)
def test_what_the_store_may_lose_is_said_from_the_first_and_when_it_changes(
    found: tuple[Doubt, ...], replicas: int, expected: tuple[str, str, str]
) -> None:
    waits = spec(checkpoint={"replicas": replicas})
    first = written(decide(waits, WorkflowRunStatus(), look(store(None, doubts=found)), NOW))
    before = status().with_condition("StoreDurable", "False", "Before", now=NOW - 500)
    changed = written(decide(waits, before, look(store(meta(), LEASE, doubts=found), pod()), NOW))
    for said in (first.condition("StoreDurable"), changed.condition("StoreDurable")):
        assert said is not None
        assert (said.status, said.reason, said.message) == expected


def test_row_10_no_state_is_made_in_a_store_without_identity() -> None:
    got = decide(spec(), WorkflowRunStatus(), look(store(None, store_id="")), NOW)
    assert (got.row, kinds(got), told(got)) == (10, [SetStatus, Requeue], ["StoreNotIdentified"])


DONE = encode_outcome(Outcome("Completed", result={"documents": 300}))


def test_row_11_the_status_is_copied_from_the_outcome() -> None:
    summary = encode_summary(Summary(completed_steps=301, last_step="join", replayed_steps=2))
    view = store(meta(outcome=DONE, seq=9, summary=summary, log_bytes=10, snapshot_bytes=5))
    got = decide(spec(), status(), look(view, dead(0)), NOW)
    new = written(got)
    assert (got.row, new.phase, new.result, new.completion_time) == (
        11,
        Phase.SUCCEEDED,
        {"documents": 300},
        NOW,
    )
    assert (new.last_checkpoint.seq, new.last_checkpoint.bytes) == (9, 15)
    assert (new.progress.completed_steps, new.replayed_steps) == (301, 2)
    assert new.attempts[-1].reason == "Completed"
    assert new.condition("Finished").status == "True"  # type: ignore[union-attr]
    assert "Completed" in told(got)


def test_row_11_an_end_has_smaller_statuses_to_fall_back_on() -> None:
    failure = {"message": "x" * 900, "traceback": "t" * 9000, "step": "convert", "exceptionType": "OSError"}
    view = store(meta(outcome=encode_outcome(Outcome("StepFailed", failure=failure))))
    write = one(decide(spec(), status(), look(view), NOW), SetStatus)
    full, (smaller, least) = write.status, write.fallbacks
    assert full.failure.step == "convert"
    assert len(full.failure.traceback) == 4096
    sizes = [len(json.dumps(one_.to_json())) for one_ in (full, smaller, least)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 16 * 1024
    for one_ in (smaller, least):
        assert (one_.completion_time, one_.epoch, one_.store_id) == (NOW, 2, "store-1")
        assert one_.is_true("Finished")


def test_row_11_a_large_result_stays_in_the_store() -> None:
    view = store(meta(outcome=encode_outcome(Outcome("Completed", result="x" * 5000))))
    new = written(decide(spec(), status(), look(view), NOW))
    assert new.result is None
    assert new.result_ref is not None
    assert new.result_ref.bytes == 5002


@pytest.mark.parametrize("data", [b"", b"null", b"\xff\xfe", b'{"reason": 3}', b"[" * 100_000])
def test_row_11_an_outcome_that_cannot_be_read_is_an_end(data: bytes) -> None:
    new = written(decide(spec(), status(), look(store(meta(outcome=data))), NOW))
    assert (new.phase, new.condition("Succeeded").reason) == (Phase.FAILED, "OutcomeUnreadable")  # type: ignore[union-attr]


def test_row_12_a_store_that_went_back_is_given_the_time_to_be_rewritten() -> None:
    ahead = status(last_checkpoint=LastCheckpoint(seq=20))
    first = decide(spec(), ahead, look(store(meta(), LEASE), pod()), NOW)
    assert (first.row, told(first)) == (12, ["StoreRegressed"])
    seen = written(first)
    waiting = decide(spec(), seen, look(store(meta(), LEASE), pod()), NOW + 600)
    assert (waiting.row, kinds(waiting)) == (12, [Requeue])
    assert kinds(decide(spec(), seen, look(store(meta())), NOW + 19)) == [Requeue]
    lost = decide(spec(), seen, look(store(meta())), NOW + 20)
    finish = one(lost, Finish)
    assert finish.reason == "StateLost"
    assert "7" in finish.message
    assert "20" in finish.message


def test_row_13_a_higher_epoch_of_the_store_is_adopted() -> None:
    got = decide(spec(), status(), look(store(meta(epoch=5, holder="")), pod(5)), NOW)
    new = written(got)
    assert (got.row, new.epoch, new.pod_ref, told(got)) == (
        13,
        5,
        PodRef(name="run-5", uid="pod-5"),
        ["EpochAdopted"],
    )


def test_row_14_a_lower_epoch_of_the_store_is_raised_before_anything_else() -> None:
    got = decide(spec(), status(), look(store(meta(epoch=1, holder="h1"), Lease(1, "h1", 5)), pod(1)), NOW)
    assert got == Decision(14, (AdvanceEpoch(2, "Crashed"), Requeue(0.0)))


# --- what goes along ------------------------------------------------------------------------------


def test_row_15_pods_of_earlier_epochs_are_removed_but_for_the_last_finished_one() -> None:
    old = [pod(0, PodState.FINISHED), pod(1, PodState.FINISHED, exit_code=137), pod(-1, PodState.RUNNING)]
    now_on = status(
        attempts=[Attempt(attempt=1, epoch=1), Attempt(attempt=2, epoch=2, start=NOW - 9)], failures=1
    )
    view = store(meta(step_seq=7), LEASE)
    got = decide(spec(), now_on, look(view, *old, pod()), NOW)
    assert got.row == 41
    assert [action.uid for action in got.actions if isinstance(action, DeletePod)] == ["pod-0", "pod--1"]
    new = written(got)
    assert new.attempts[0].exit_code == 137
    assert new.failures == 1, "an old pod's end moves no counter"


def test_row_16_progress_resets_what_is_held_against_the_run() -> None:
    view = store(meta(seq=9, step_seq=9), LEASE)
    new = written(decide(spec(), status(failures=4), look(view, pod()), NOW))
    assert (new.failures, new.progress_seq, new.cause_count) == (0, 9, 0)


def test_row_16_an_engine_tick_is_no_progress() -> None:
    new = written(decide(spec(), status(failures=4), look(store(meta(seq=30), LEASE), pod()), NOW))
    assert new.failures == 4


def test_row_16_the_runner_is_told_what_is_wanted_in_both_directions() -> None:
    asked = status(end_requested=EndRequest(reason="Cancelled", time=NOW))
    got = decide(spec(desiredState="Cancelled"), asked, look(store(meta(), LEASE), pod()), NOW)
    assert one(got, SetDesired).desired == "Cancelled"
    back = decide(spec(), status(), look(store(meta(desired="Cancelled"), LEASE), pod()), NOW)
    assert one(back, SetDesired).desired == "Running"
    released = decide(spec(), status(), look(store(meta(desired="Cancelled", released="yield"))), NOW)
    assert SetDesired not in kinds(released)


# --- cancelling -----------------------------------------------------------------------------------

CANCEL = spec(desiredState="Cancelled")
ASKED = status(end_requested=EndRequest(reason="Cancelled", time=NOW))


def test_row_17_the_time_of_the_request_is_written_first() -> None:
    got = decide(CANCEL, status(), look(store(meta(), LEASE), pod()), NOW)
    assert (got.row, written(got).end_requested, told(got)) == (
        17,
        EndRequest(reason="Cancelled", time=NOW),
        ["CancelRequested"],
    )


def test_row_18_a_live_runner_has_the_grace_period_to_end_by_itself() -> None:
    live = look(store(meta(), LEASE), pod())
    assert wait(decide(CANCEL, ASKED, live, NOW + 10)) == 20
    silent_in_grace = decide(CANCEL, ASKED, look(grace(store(meta())), pod()), NOW)
    assert silent_in_grace.row == 18


@pytest.mark.parametrize(
    ("seen", "now"),
    [
        (look(store(meta(), LEASE), pod()), NOW + 30),
        (look(store(meta(holder=""))), NOW),
        (look(store(meta()), pod()), NOW),
        (look(store(meta()), dead(1)), NOW),
        (look(store(meta(holder="")), pod(state=PodState.STARTING)), NOW),
        (look(store(meta(released="yield")), dead(75)), NOW),
    ],
)
def test_row_19_nobody_who_could_end_it_so_the_run_is_ended(seen: Observation, now: float) -> None:
    got = decide(CANCEL, ASKED, seen, now)
    assert (got.row, one(got, Finish).reason, one(got, Finish).epoch) == (19, "Cancelled", 3)
    assert wait(got) == 0


# --- an attempt that ended ------------------------------------------------------------------------


def words(reason: str, message: str = "") -> str:
    return json.dumps({"epoch": 2, "seq": 7, "kind": "exit", "reason": reason, "message": message})


def is_takeover(decision: Decision, cause: str, *, at_once: bool = True) -> WorkflowRunStatus:
    """The order that makes it safe: status, fence, successor, and only then the old pod."""
    order = [kind for kind in kinds(decision) if kind in (SetStatus, AdvanceEpoch, CreatePod)]
    assert order == [SetStatus, AdvanceEpoch, CreatePod][: 3 if at_once else 2]
    new = written(decision)
    assert (new.epoch, new.attempt, new.pod_ref, new.cause) == (3, 3, None, cause)
    assert one(decision, AdvanceEpoch) == AdvanceEpoch(3, cause)
    assert "TakeoverStarted" in told(decision)
    assert new.attempts[-2].reason == cause
    assert new.phase is Phase.RECOVERING
    return new


@pytest.mark.parametrize("reason", ["InvalidSpec", "Incompatible", "CheckpointCorrupt", "CheckpointTooLarge"])
def test_row_24_what_can_never_work_ends_the_run(reason: str) -> None:
    got = decide(
        spec(), status(), look(store(meta()), dead(77, message=words(reason, "no such module"))), NOW
    )
    assert (got.row, one(got, Finish).reason, one(got, Finish).message) == (24, reason, "no such module")
    assert DeletePod not in kinds(got), "its log says more"


def test_row_24_exit_77_without_a_reason_is_a_crash() -> None:
    got = decide(spec(), status(), look(store(meta()), dead(77)), NOW)
    assert got.row == 29
    is_takeover(got, "Crashed", at_once=False)


@pytest.mark.parametrize("pods", [(dead(75),), (pod(deleting=True),), (pod(),), ()])
def test_row_25_a_run_given_back_is_taken_up_at_once(pods: tuple[Pod, ...]) -> None:
    got = decide(spec(), status(), look(store(meta(released="yield")), *pods), NOW)
    assert got.row == 25
    new = is_takeover(got, "Disrupted")
    assert (new.disruptions, new.failures) == (1, 0)


def test_row_25_more_disruptions_than_allowed_end_the_run() -> None:
    few = spec(recovery={"maxDisruptions": 1})
    view = look(store(meta(released="yield")), dead(75))
    assert decide(few, status(disruptions=0), view, NOW).row == 25
    got = decide(few, status(disruptions=1), view, NOW)
    assert (got.row, one(got, Finish).reason) == (30, "DisruptionsExhausted")


@pytest.mark.parametrize(("code", "reason"), [(76, "LeaseLost"), (77, "StoreUnavailable")])
def test_row_26_a_runner_that_left_because_of_the_store_is_not_to_blame(code: int, reason: str) -> None:
    view = store(meta(), trouble_until=NOW - 8)
    got = decide(spec(), status(), look(view, dead(code, message=words(reason))), NOW)
    assert got.row == 26
    new = is_takeover(got, "StoreUnavailable")
    assert (new.failures, new.disruptions) == (0, 0)
    again = decide(
        spec(), status(cause="StoreUnavailable"), look(view, dead(code, message=words(reason))), NOW
    )
    assert written(again).not_before == NOW + 1


def test_row_26_a_runner_that_left_long_after_the_trouble_is() -> None:
    view = store(meta(), trouble_until=NOW - 14)
    got = decide(spec(), status(), look(view, dead(77, message=words("StoreUnavailable"))), NOW)
    assert (got.row, written(got).failures) == (29, 1)


@pytest.mark.parametrize("code", [0, 1, 137])
def test_row_29_a_crash_is_a_failure_with_back_off(code: int) -> None:
    got = decide(spec(), status(failures=2), look(store(meta()), dead(code)), NOW)
    assert got.row == 29
    new = is_takeover(got, "Crashed", at_once=False)
    assert (new.failures, new.not_before, wait(got)) == (3, NOW + 4, 4)
    assert new.attempts[-2].exit_code == code
    assert new.attempts[-2].end == NOW - 3


def test_row_29_the_back_off_has_a_limit() -> None:
    long = spec(recovery={"maxFailures": 100, "maxBackoffSeconds": 45})
    assert (
        written(decide(long, status(failures=50), look(store(meta()), dead(1)), NOW)).not_before == NOW + 45
    )


def test_row_29_an_eviction_is_a_disruption_whatever_the_exit_code() -> None:
    got = decide(spec(), status(), look(store(meta()), dead(137, disrupted=True)), NOW)
    new = is_takeover(got, "Disrupted")
    assert (new.failures, new.disruptions) == (0, 1)


def test_row_29_a_fenced_runner_is_a_disruption_with_back_off_from_the_second() -> None:
    first = decide(spec(), status(cause=""), look(store(meta()), dead(76)), NOW)
    is_takeover(first, "Fenced")
    second = decide(spec(), status(cause="Fenced", cause_count=1), look(store(meta()), dead(76)), NOW)
    assert written(second).not_before == NOW + 1


def test_row_29_memory_is_named() -> None:
    small = spec(template={"resources": {"limits": {"memory": "64Mi"}}})
    got = decide(small, status(), look(store(meta()), dead(137, reason="OOMKilled")), NOW)
    assert is_takeover(got, "OOMKilled", at_once=False)
    assert "64Mi" in one(got, SetStatus).events[0].message


def test_row_30_too_many_failures_without_progress_end_the_run() -> None:
    got = decide(spec(), status(failures=5), look(store(meta()), dead(1)), NOW)
    assert (got.row, one(got, Finish).reason) == (30, "FailuresExhausted")


STUCK = (InFlight("i1", "fine", 0), InFlight("i2", "convert", 5))


@pytest.mark.parametrize("seen", [dead(137, reason="OOMKilled"), dead(76), pod()])
def test_row_30_an_invocation_that_is_always_cut_off_ends_the_run_and_is_named(seen: Pod) -> None:
    got = decide(spec(), status(), look(store(meta(in_flight=STUCK)), seen), NOW)
    finish = one(got, Finish)
    assert (got.row, finish.reason, finish.failure["step"]) == (30, "NoProgress", "convert")
    assert "convert" in finish.message


def test_row_30_a_runner_that_never_had_the_run_cut_nothing() -> None:
    got = decide(spec(), status(), look(store(meta(holder="", in_flight=STUCK)), dead(1)), NOW)
    assert got.row == 29


def test_row_31_a_pod_refused_by_its_kubelet_goes_elsewhere() -> None:
    got = decide(spec(), status(), look(store(meta(holder="")), pod(state=PodState.REJECTED)), NOW)
    assert got.row == 31
    new = is_takeover(got, "Rejected", at_once=False)
    assert new.avoid_nodes[0].node == "worker-1"
    assert new.not_before == NOW + 1


def test_row_31_a_pod_that_is_refused_while_its_runner_lives_is_left_to_its_lease() -> None:
    # A kubelet that was restarted admits its pods anew; one that it refuses has run all the while.
    refused = pod(state=PodState.REJECTED)
    got = decide(spec(), status(), look(store(meta(), LEASE), refused), NOW)
    assert (got.row, wait(got)) == (31, pytest.approx(7.05))
    assert wait(decide(spec(), status(), look(grace(store(meta())), refused), NOW)) == 6
    is_takeover(decide(spec(), status(), look(store(meta()), refused), NOW), "Rejected", at_once=False)


# --- no pod, or one that doesn't run yet ----------------------------------------------------------

FRESH = {"pod_ref": None, "attempts": [Attempt(attempt=2, epoch=2, start=NOW - 1)]}


def test_row_32_the_pod_is_made_when_the_back_off_is_over() -> None:
    view = look(store(meta(holder="")))
    assert wait(decide(spec(), status(**FRESH, not_before=NOW + 3), view, NOW)) == 3
    got = decide(spec(), status(**FRESH, not_before=NOW - 1), view, NOW)
    assert (got.row, one(got, CreatePod)) == (32, CreatePod(2, 2, ()))


def test_row_32_after_trouble_with_the_store_the_epoch_is_not_used_again() -> None:
    view = store(meta(holder=""), trouble_until=NOW - 0.5)
    got = decide(spec(), status(**FRESH), look(view), NOW)
    assert got.row == 32
    is_takeover(got, "Crashed")
    settled = decide(spec(), written(got), look(store(meta(epoch=3, holder=""), trouble_until=NOW)), NOW)
    assert (settled.row, one(settled, CreatePod).epoch) == (32, 3), "and no second takeover for one trouble"


@pytest.mark.parametrize(
    ("code", "attempt", "reason"),
    [(409, 1, "PodNameTaken"), (403, 1, "PodRefused"), (500, 1, "PodRefused"), (422, 2, "PodRefused")],
)
def test_row_32_a_pod_that_the_api_refuses_is_tried_again(code: int, attempt: int, reason: str) -> None:
    case = Case(spec(), status(**FRESH, attempt=attempt), look(store(meta(holder=""))), NOW)
    got = pod_refused(case, code, "quota exceeded")
    assert (told(got), got.actions[-1]) == ([reason], Requeue(10.0, error=True))
    assert written(got).failures == 0


def test_row_32_a_first_pod_that_is_invalid_ends_the_run() -> None:
    case = Case(spec(), status(**FRESH, attempt=1), look(store(meta(holder=""))), NOW)
    assert one(pod_refused(case, 422, "bad volume"), Finish).reason == "InvalidSpec"


@pytest.mark.parametrize("pods", [(), (pod(state=PodState.LOST),)])
def test_row_33_gone_is_not_dead_while_the_lease_lives(pods: tuple[Pod, ...]) -> None:
    live = decide(spec(), status(), look(store(meta(), LEASE), *pods), NOW)
    assert (live.row, wait(live)) == (33, 7.05)
    in_grace = decide(spec(), status(), look(grace(store(meta())), *pods), NOW)
    assert (in_grace.row, wait(in_grace)) == (33, 6)
    crowd = decide(spec(), status(), look(store(meta(), crowd=True), *pods), NOW)
    assert (crowd.row, AdvanceEpoch in kinds(crowd)) == (33, False)


@pytest.mark.parametrize("holder", ["h2", ""])
def test_row_33_a_pod_that_was_seen_and_is_gone_means_a_new_epoch(holder: str) -> None:
    got = decide(spec(), status(), look(store(meta(holder=holder))), NOW)
    assert got.row == 33
    new = is_takeover(got, "PodGone")
    assert new.disruptions == 1


def test_row_34_a_pod_that_fits_nowhere_waits_and_says_so() -> None:
    waiting = pod(state=PodState.UNSCHEDULED, reason="Unschedulable", message="0/3 nodes", since=NOW - 9000)
    got = decide(spec(), status(), look(store(meta(holder="")), waiting), NOW)
    running = written(got).condition("Running")
    assert running is not None
    assert (got.row, running.reason, running.message) == (34, "Unschedulable", "0/3 nodes")
    assert (told(got), written(got).failures) == (["Unschedulable"], 0)


@pytest.mark.parametrize(
    "late",
    [
        pod(state=PodState.UNACKNOWLEDGED, since=NOW - 21),
        pod(state=PodState.UNACKNOWLEDGED, since=NOW, node_ready=False),
        pod(state=PodState.STARTING, since=NOW, node_ready=False),
    ],
)
def test_row_35_a_pod_on_a_lost_node_goes_elsewhere(late: Pod) -> None:
    got = decide(spec(), status(), look(store(meta(holder="")), late), NOW)
    assert got.row == 35
    new = is_takeover(got, "NodeLost")
    assert one(got, CreatePod).avoid_nodes == ("worker-1",)
    assert new.disruptions == 1
    third = decide(spec(), status(cause="NodeLost", cause_count=2), look(store(meta(holder="")), late), NOW)
    assert written(third).not_before == NOW + 1


def test_row_35_a_long_lease_makes_the_wait_longer() -> None:
    patient = spec(recovery={"leaseSeconds": 60})
    late = pod(state=PodState.UNACKNOWLEDGED, since=NOW - 50)
    assert decide(patient, status(), look(store(meta(holder="")), late), NOW).row == 36


def test_row_36_an_image_that_is_slow_to_come_is_waited_for() -> None:
    pulling = pod(state=PodState.STARTING, reason="ErrImagePull", message="not found", since=NOW - 5000)
    got = decide(spec(), status(), look(store(meta(holder="")), pulling), NOW)
    assert (got.row, told(got), wait(got)) == (36, ["ImagePullBackOff"], 30)
    again = decide(
        spec(), written(got), look(store(meta(holder="")), replace(pulling, reason="ImagePullBackOff")), NOW
    )
    assert kinds(again) == [Requeue], "the two names of one trouble are one write"


def test_row_36_an_image_that_can_never_come_ends_the_run() -> None:
    wrong = pod(state=PodState.STARTING, reason="InvalidImageName", message="UPPER")
    got = decide(spec(), status(), look(store(meta(holder="")), wrong), NOW)
    assert (got.row, one(got, Finish).reason) == (36, "InvalidSpec")


def test_row_37_a_runner_has_a_minute_to_take_its_run() -> None:
    young, old = pod(since=NOW - 59), pod(since=NOW - 60)
    view = store(meta(holder=""))
    assert decide(spec(), status(), look(view, young), NOW).row == 37
    assert decide(spec(), status(), look(grace(view), old), NOW).row == 37
    got = decide(spec(), status(), look(view, old), NOW)
    new = is_takeover(got, "StartTimeout", at_once=False)
    assert new.failures == 1
    assert one(got, DeletePod).uid == "pod-2"
    # A node whose clock is an hour behind says that it began before it was asked to.
    begun = status(attempts=[Attempt(attempt=2, epoch=2, start=NOW - 59)])
    early = decide(spec(), begun, look(view, pod(since=NOW - 3600)), NOW)
    assert AdvanceEpoch not in kinds(early)


# --- an attempt that has the run ------------------------------------------------------------------


def test_row_38_a_silent_runner_is_replaced_on_another_node() -> None:
    got = decide(spec(), status(cause=""), look(store(meta()), pod()), NOW)
    assert got.row == 38
    new = is_takeover(got, "LeaseExpired")
    assert one(got, CreatePod).avoid_nodes == ("worker-1",)
    assert (new.disruptions, new.failures) == (1, 0)
    assert new.attempts[-1].predecessor_end == NOW - 10, "it may have died right after its last renewal"


@pytest.mark.parametrize(("before", "pause"), [(0, None), (1, None), (2, 1), (3, 2)])
def test_row_38_back_off_begins_with_the_third_in_a_row(before: int, pause: float | None) -> None:
    now_on = status(cause="LeaseExpired", cause_count=before)
    new = written(decide(spec(), now_on, look(store(meta()), pod()), NOW))
    assert new.not_before == (None if pause is None else NOW + pause)


@pytest.mark.parametrize("lease", [None, Lease(2, "h2", 0.0), Lease(1, "h2", 5.0), Lease(2, "another", 5.0)])
def test_row_38_only_the_holders_own_lease_of_this_epoch_counts(lease: Lease | None) -> None:
    assert decide(spec(), status(), look(store(meta(), lease), pod()), NOW).row == 38


def test_row_39_nobody_is_silent_in_grace_or_in_a_crowd() -> None:
    in_grace = decide(spec(), status(), look(grace(store(meta())), pod()), NOW)
    assert in_grace == Decision(39, (Requeue(6.0),))
    crowd = decide(spec(), status(), look(store(meta(), crowd=True), pod()), NOW)
    assert (crowd.row, told(crowd)) == (39, ["ManyLeasesSilent"])
    again = decide(spec(), written(crowd), look(store(meta(), crowd=True), pod()), NOW + 1)
    assert kinds(again) == [Requeue]


def test_row_40_a_live_runner_whose_pod_is_deleted_is_not_replaced_before_it_gives_back() -> None:
    got = decide(spec(), status(), look(store(meta(), LEASE), pod(deleting=True)), NOW)
    running = written(got).condition("Running")
    assert running is not None
    assert (got.row, running.status, running.reason, wait(got)) == (40, "True", "Terminating", 1)
    assert AdvanceEpoch not in kinds(got)


def test_row_41_progress_is_written_at_intervals_and_tells_no_event() -> None:
    first = decide(spec(), status(), look(store(meta(), LEASE), pod()), NOW)
    known = written(first)
    later = store(meta(seq=8, step_seq=7), LEASE)
    early = decide(spec(), known, look(later, pod()), NOW + 2)
    assert early == Decision(41, (Requeue(3.0),))
    due = decide(spec(), known, look(later, pod()), NOW + 5)
    assert written(due).last_checkpoint.seq == 8
    assert told(due) == []
    same = decide(spec(), known, look(store(meta(), LEASE), pod()), NOW + 500)
    assert same == Decision(41, (Requeue(7.05),)), "and nothing at all when nothing changed"


def test_row_41_the_first_progress_ends_the_recovery() -> None:
    tick = store(meta(seq=9, step_seq=5, commit_time=NOW - 2), LEASE)
    assert "Resumed" not in told(decide(spec(), status(), look(tick, pod()), NOW)), "an engine tick is none"
    view = store(meta(seq=9, step_seq=9, commit_time=NOW - 2), LEASE)
    got = decide(spec(), status(), look(view, pod()), NOW)
    new = written(got)
    assert new.attempts[-1].recovery_seconds == 108
    assert "Resumed" in told(got)
    assert "Resumed" not in told(decide(spec(), new, look(view, pod()), NOW + 10))


def test_row_41_a_start_is_told_at_once() -> None:
    starting = status().with_condition("Running", "False", "Starting", now=NOW - 5)
    got = decide(spec(), starting, look(store(meta(), LEASE), pod()), NOW)
    assert "Started" in told(got)
    assert written(got).phase is Phase.RUNNING


def test_row_41_the_end_of_an_outage_is_told() -> None:
    away = written(decide(spec(), status(), look(AWAY, pod()), NOW))
    assert away.store_trouble == StoreTrouble(reason="StoreUnavailable", since=NOW)
    got = decide(spec(), away, look(grace(store(meta(), LEASE)), pod()), NOW + 5)
    assert "StoreReady" in told(got)
    assert written(got).is_true("StoreReady")
    assert written(got).store_trouble is None


@pytest.mark.parametrize("outcome", [None, encode_outcome(Outcome("Completed"))])
def test_a_restart_of_the_store_that_may_have_cost_something_is_told_once(outcome: bytes | None) -> None:
    # Nobody else can tell it when the runner died with its store.
    view = look(store(meta(restarts=1, outcome=outcome), LEASE), pod())
    got = decide(spec(), status(), view, NOW)
    assert "StoreRestarted" in told(got)
    assert written(got).store_restarts == 1
    assert "StoreRestarted" not in told(decide(spec(), status(store_restarts=1), view, NOW))


def test_row_41_a_run_that_waits_says_so() -> None:
    view = store(meta(summary=encode_summary(Summary(waiting=True, wakes=("Answer", "Odd")))), LEASE)
    new = written(decide(spec(), status(), look(view, pod()), NOW))
    assert new.phase is Phase.WAITING
    condition = new.condition("Waiting")
    assert condition is not None
    assert condition.message.endswith("events that would wake it: Answer, Odd")
    back = written(decide(spec(), new, look(store(meta(), LEASE), pod()), NOW + 6))
    assert back.phase is Phase.RUNNING


@pytest.mark.parametrize(
    "summary", [b"", b"[]", b"{}", b"\xff", b'{"completedSteps": -1, "activeSteps": [3, {"step": "a"}, "b"]}']
)
def test_row_41_a_summary_that_is_not_one_stops_nothing(summary: bytes) -> None:
    got = decide(spec(), status(), look(store(meta(summary=summary), LEASE), pod()), NOW)
    assert (got.row, written(got).progress.completed_steps) == (41, 0)


# --- the order of the rows ------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [spec(), CANCEL])
@pytest.mark.parametrize(
    "seen",
    [
        look(store(meta(outcome=DONE)), dead(1)),
        look(store(meta(outcome=DONE)), pod()),
        look(store(meta(outcome=DONE, released="yield")), dead(75)),
        look(store(meta(outcome=DONE, epoch=9))),
        look(store(meta(outcome=DONE, epoch=1))),
        look(grace(store(meta(outcome=DONE, seq=1)))),
    ],
)
def test_order_an_outcome_comes_before_every_end_and_every_takeover(
    wanted: WorkflowRunSpec, seen: Observation
) -> None:
    for known in (status(), ASKED, status(last_checkpoint=LastCheckpoint(seq=50))):
        got = decide(wanted, known, seen, NOW + 60)
        assert got.row == 11
        assert written(got).condition("Succeeded").reason == "Completed"  # type: ignore[union-attr]


@pytest.mark.parametrize(("epoch", "row"), [(3, 13), (1, 14)])
@pytest.mark.parametrize(
    "seen", [(), (pod(),), (dead(1),), (dead(77, message=words("InvalidSpec")),), (pod(deleting=True),)]
)
def test_order_the_epochs_agree_before_anything_reads_holder_or_lease(
    epoch: int, row: int, seen: tuple[Pod, ...]
) -> None:
    for view in (store(meta(epoch=epoch)), store(meta(epoch=epoch, released="yield"))):
        assert decide(CANCEL, ASKED, look(view, *seen), NOW + 60).row == row


@pytest.mark.parametrize("code", [0, 1, 75, 76, 137])
def test_order_a_release_comes_before_exit_codes(code: int) -> None:
    got = decide(spec(), status(failures=5), look(store(meta(released="yield")), dead(code)), NOW)
    assert (got.row, written(got).failures) == (25, 5)


@pytest.mark.parametrize(
    ("seen", "row"),
    [
        (dead(1), 29),
        (dead(77, message=words("Incompatible")), 24),
        (pod(state=PodState.REJECTED), 31),
        (pod(state=PodState.LOST), 33),
        (pod(state=PodState.UNSCHEDULED), 34),
    ],
)
def test_order_what_the_pod_says_comes_before_its_silence(seen: Pod, row: int) -> None:
    assert decide(spec(), status(), look(store(meta()), seen), NOW).row == row
