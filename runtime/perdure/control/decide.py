"""What to do about a run, given one picture of it: the table of rules that laptop and cluster share.

Pure. Rows are tried from the top and the first that matches decides; two of them (15 and 16) only
add to what a later one decides. Row numbers have gaps where a later version has rows: suspending,
hibernation, retries, resuming from another run, deadlines.
"""

from __future__ import annotations

from perdure.control.actions import (
    Action,
    AddFinalizer,
    AdvanceEpoch,
    CleanStore,
    Decision,
    DeleteRun,
    Event,
    InitStore,
    RemoveFinalizer,
    Requeue,
    SetDesired,
)
from perdure.control.api import WorkflowRunSpec
from perdure.control.attempt import ended_attempt, no_pod, starting
from perdure.control.case import KEPT_ATTEMPTS, KEPT_PODS, MANY_SILENT, Case
from perdure.control.copying import (
    copy_durability,
    copy_outcome,
    copy_restarts,
    finish,
)
from perdure.control.holder import live, silent
from perdure.control.observation import Observation, PodState, StoreState
from perdure.control.status import (
    Attempt,
    EndRequest,
    Failure,
    PodRef,
    WorkflowRunStatus,
)
from perdure.control.transitions import (
    end,
)
from perdure.store.base import Meta

CLEANUP_PATIENCE = 600.0
MISSING_PATIENCE = 10.0
POD_LINGER = 30.0
UNDECIDED = 42


def decide(spec: WorkflowRunSpec, status: WorkflowRunStatus, obs: Observation, now: float) -> Decision:
    """The row that holds, and its actions in order. `now` is the caller's clock, in Unix seconds."""
    case = Case(spec, status, obs, now)
    return (
        _deleted(case)
        or _over(case)
        or _not_accepted(case)
        or _store_away(case)
        or _state_missing(case)
        or _first_state(case)
        or _with_meta(case)
        or Decision(UNDECIDED, (Requeue(5.0),))
    )


def _with_meta(case: Case) -> Decision | None:
    meta = case.meta
    if meta is None:
        return None
    store_first = _outcome(case, meta) or _regressed(case, meta) or _epochs_differ(case, meta)
    if store_first is not None:
        return store_first
    _tidy(case, meta)
    return (
        _ending(case)
        or ended_attempt(case)
        or no_pod(case)
        or starting(case)
        or silent(case)
        or live(case, meta)
    )


# --- before the store is asked ---------------------------------------------------------------------


def _deleted(case: Case) -> Decision | None:
    obs, status = case.obs, case.status
    if obs.deletion_time is None:
        return None
    if not obs.finalizer:
        return Decision(1, ())
    pods = case.delete(list(obs.pods))
    if obs.store.answers:
        # No waiting for pods: without meta, or with it marked, no script lets them write.
        known = status.store_id != "" or case.meta is not None
        if case.spec.state_retention == "Delete":
            keep: tuple[Action, ...] = (CleanStore(),)
            told = Event("StateRemoved", "the run's state was removed from the store")
        else:
            keep = ()
            told = Event("StateRetained", "the run's state stays in the store (stateRetention is Retain)")
        fence = AdvanceEpoch(case.next_epoch, "Deleted", deleted=True)
        return Decision(2, (fence, *pods, *keep, RemoveFinalizer((told,) if known else ())))
    waited = case.now - obs.deletion_time
    if status.store_id and waited < CLEANUP_PATIENCE and not obs.namespace_terminating:
        case.trouble(
            "CleanupWaiting",
            f"the store that holds the run's state doesn't answer ({obs.store.message}); "
            f"trying for {CLEANUP_PATIENCE / 60:.0f} minutes before leaving the state behind",
        )
        return Decision(3, (*pods, *case.write(), Requeue(5.0, error=True)))
    left = Event("StateLeftBehind", "the store didn't answer: the run's state is still in it", warning=True)
    return Decision(4, (*pods, RemoveFinalizer((left,) if status.store_id else ())))


def _over(case: Case) -> Decision | None:
    completed = case.status.completion_time
    if completed is None:
        return None
    pods = sorted(case.obs.pods, key=lambda pod: pod.epoch, reverse=True)
    lingering = [pod for pod in pods[:KEPT_PODS] if pod.state is not PodState.FINISHED]
    since = case.now - completed
    doomed = pods[KEPT_PODS:] + (lingering if since >= POD_LINGER else [])
    actions = case.delete(doomed)
    ttl = case.spec.ttl_seconds_after_finished
    if ttl is not None and since >= ttl:
        return Decision(6, (*actions, DeleteRun()))
    waits = [ttl - since] if ttl is not None else []
    if lingering:
        waits.append(max(POD_LINGER - since, 1.0))
    return Decision(6, (*actions, *([Requeue(min(waits))] if waits else [])))


def _not_accepted(case: Case) -> Decision | None:
    if case.status.store_id:
        return None
    if not case.obs.finalizer:
        return Decision(7, (AddFinalizer(), Requeue(0.0)))
    if case.obs.refused:
        case.say("Accepted", "False", "InvalidSpec", case.obs.refused)
        return _ended_unstarted(case, 7, "InvalidSpec", case.obs.refused)
    if case.spec.desired_state == "Cancelled":
        case.say("Accepted", "False", "Cancelled")
        return _ended_unstarted(case, 7, "Cancelled", "cancelled before it was started")
    return None


def _ended_unstarted(case: Case, row: int, reason: str, message: str) -> Decision:
    """An end that the store has no meta to hold for: the status alone says it."""
    case.change(completion_time=case.now, failure=Failure(reason=reason, message=message[:1024]))
    finish(case, reason, message)
    told = Event(reason, message, warning=reason != "Cancelled")
    return case.decision(row, *case.write(told), *case.delete(list(case.obs.pods)), Requeue(1.0))


# --- the store and what it holds -------------------------------------------------------------------


def _store_away(case: Case) -> Decision | None:
    store = case.obs.store
    if store.answers:
        return None
    reason = "WrongStore" if store.state is StoreState.WRONG else "StoreUnavailable"
    told = Event(
        reason, f"{store.message or 'the store does not answer'}; the run waits for it", warning=True
    )
    since = case.trouble(reason, store.message, told)
    pod = case.pod
    if pod is not None and case.dead:
        case.note(pod)
    actions: list[Action] = []
    if case.want == "Cancelled":
        asked = _ask_end(case)
        if case.now >= asked + case.spec.cancel_grace_period_seconds and pod is not None and not case.dead:
            actions = case.delete([pod])  # user code stops; the outcome waits for the store
    return case.decision(8, *case.write(), *actions, Requeue(min(30.0, max(1.0, since / 2))))


def _ask_end(case: Case) -> float:
    """Draft endRequested; when the end was asked for."""
    asked = case.status.end_requested
    if asked is None:
        asked = EndRequest(reason="Cancelled", time=case.now)
        case.change(end_requested=asked)
        grace = case.spec.cancel_grace_period_seconds
        case.events.append(Event("CancelRequested", f"steps in flight have {grace} s to end by themselves"))
    return asked.time


def _state_missing(case: Case) -> Decision | None:
    if not case.status.store_id or case.meta is not None:
        return None
    first = case.status.store_trouble is None or case.status.store_trouble.reason != "StateMissing"
    since = case.trouble("StateMissing", "the store answers and has no state of this run")
    if first or since < MISSING_PATIENCE or case.obs.store.state is StoreState.GRACE:
        return case.decision(9, *case.write(), Requeue(MISSING_PATIENCE))
    return _ended_unstarted(
        case,
        9,
        "StateLost",
        f"the store {case.status.store_id} answers and has had no state of this run for {since:.0f} s: "
        "it was removed or evicted. Restore the store's data, or start a new run",
    )


def _first_state(case: Case) -> Decision | None:
    if case.status.store_id:
        return None
    store = case.obs.store
    if not store.store_id:
        case.trouble(
            "StoreNotIdentified",
            "the store has no identity, though live runs say that it had: it was wiped, or it is another one",
        )
        return case.decision(10, *case.write(), Requeue(10.0))
    epoch = max(1, case.store_epoch)
    case.change(
        store_id=store.store_id,
        epoch=epoch,
        attempt=epoch,
        attempts=[Attempt(attempt=epoch, epoch=epoch, start=case.now)],
        start_time=case.now,
        code=dict(case.obs.code),
        store_trouble=None,
    )
    case.say("Accepted", "True", "Accepted")
    case.say("StoreReady", "True", "Ready")
    copy_durability(case)
    case.say("Running", "False", "Starting")
    case.say("Finished", "False", "Live")
    case.say("Succeeded", "Unknown", "Live")
    told = Event(
        "Accepted", f"{case.spec.workflow.entrypoint} starts; its state is in store {store.store_id}"
    )
    init: tuple[Action, ...] = (InitStore(),) if case.meta is None else ()
    return case.decision(10, *init, *case.write(told), Requeue(0.0))


def _outcome(case: Case, meta: Meta) -> Decision | None:
    if meta.outcome is None:
        return None
    for pod in case.obs.pods:
        case.note(pod)
    copy_restarts(case, meta)
    events, fallbacks = copy_outcome(case, meta, meta.outcome)
    return case.decision(11, *case.write(*events, fallbacks=fallbacks), Requeue(1.0))


def _regressed(case: Case, meta: Meta) -> Decision | None:
    seen = case.status.last_checkpoint.seq
    if meta.seq >= seen:
        return None
    message = f"the store is at seq {meta.seq}, and had acknowledged {seen}: it has lost its tail"
    since = case.trouble("StoreRegressed", message)
    if case.live or since < 2 * case.lease_seconds:
        # Its runner keeps what the store may lose and writes it again, or ends itself.
        return case.decision(12, *case.write(), Requeue(min(2.0, case.lease_seconds)))
    return end(case, 12, "StateLost", f"{message}, and nobody holds the rest")


def _epochs_differ(case: Case, meta: Meta) -> Decision | None:
    if meta.epoch > case.epoch:
        pod = next((pod for pod in case.obs.pods if pod.epoch == meta.epoch), None)
        attempt = case.draft.attempt + 1
        fresh = Attempt(attempt=attempt, epoch=meta.epoch, start=case.now, start_step_seq=meta.step_seq)
        case.change(
            epoch=meta.epoch,
            attempt=attempt,
            attempts=[*case.draft.attempts, fresh][-KEPT_ATTEMPTS:],
            pod_ref=PodRef(name=pod.name, uid=pod.uid) if pod is not None else None,
            not_before=None,
        )
        told = Event("EpochAdopted", f"the store is at epoch {meta.epoch}, the status was at {case.epoch}")
        return case.decision(13, *case.write(told), Requeue(0.0))
    if meta.epoch < case.epoch:
        return case.decision(14, AdvanceEpoch(case.epoch, case.status.cause), Requeue(0.0))
    return None


def _tidy(case: Case, meta: Meta) -> None:
    """Rows 15 and 16: what goes along with whatever a later row decides."""
    ranked = sorted(case.obs.pods, key=lambda pod: pod.epoch, reverse=True)
    for rank, pod in enumerate(ranked):
        case.note(pod)
        if pod.epoch < case.epoch and (pod.state is not PodState.FINISHED or rank >= KEPT_PODS):
            case.first += case.delete([pod])
    if case.draft.store_trouble is not None:
        case.change(store_trouble=None)
    copy_restarts(case, meta)
    if meta.step_seq > case.status.progress_seq:
        case.change(failures=0, progress_seq=meta.step_seq, cause_count=0)
    if meta.desired != case.want and not meta.released:
        case.first.append(SetDesired(case.want))
    ready = case.draft.condition("StoreReady")
    held = ready is not None and ready.reason == MANY_SILENT and case.obs.store.crowd
    if not held and (ready is None or ready.status != "True"):
        case.say("StoreReady", "True", "Ready")
        case.events.append(Event("StoreReady", "the store answers and holds the run's state"))


# --- the end that was asked for --------------------------------------------------------------------


def _ending(case: Case) -> Decision | None:
    if case.want != "Cancelled":
        return None
    if case.status.end_requested is None:
        _ask_end(case)
        return case.decision(17, *case.write(), Requeue(0.0))
    left = case.status.end_requested.time + case.spec.cancel_grace_period_seconds - case.now
    in_doubt = case.acquired and not case.released and case.obs.store.state is StoreState.GRACE
    if (case.live or in_doubt) and not case.dead and left > 0:
        return case.decision(18, Requeue(left))
    return end(case, 19, "Cancelled", "cancelled by spec.desiredState")
