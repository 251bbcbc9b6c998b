"""Rows 24 to 37: an attempt that has ended, has no pod, or whose pod doesn't have the run yet."""

from __future__ import annotations

from perdure.control.actions import CreatePod, Decision, Event, Requeue
from perdure.control.case import Case
from perdure.control.observation import Pod, PodState, StoreState
from perdure.control.outcome import decode_termination
from perdure.control.transitions import (
    back_off,
    crashed,
    disrupted,
    end,
    in_a_row,
    last_words,
    no_progress,
    stuck,
    takeover,
)

START_TIMEOUT = 60.0
UNACKNOWLEDGED_PATIENCE = 20.0
FATAL = ("InvalidSpec", "Incompatible", "CheckpointCorrupt", "CheckpointTooLarge")
STORE_LOST = ("LeaseLost", "StoreUnavailable")
NEVER_STARTS = ("InvalidImageName",)
PULLING = {"ErrImagePull": "ImagePullBackOff"}  # they take turns; one name, one status write
WORTH_TELLING = ("ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError", "Unschedulable")


def ended_attempt(case: Case) -> Decision | None:
    pod = case.pod
    finished = pod if pod is not None and pod.state is PodState.FINISHED else None
    if finished is not None and finished.exit_code == 77:
        words = decode_termination(finished.message)
        if words.reason in FATAL:
            return end(case, 24, words.reason, words.message or last_words(case, finished))
    if case.released:
        return disrupted(case, 25, "Disrupted", _why_released(case, pod))
    if finished is not None:
        return _store_was_away(case, finished) or _exited(case, finished)
    if pod is not None and pod.state is PodState.REJECTED:
        if case.live:
            return case.decision(31, Requeue(case.expires_in + 0.05))
        if case.acquired and case.forbearing:
            return case.decision(31, Requeue(forbearance(case)))
        case.avoid(pod.node)
        message = f"node {pod.node or 'unknown'} refused the pod: {pod.reason} {pod.message}".strip()
        return disrupted(case, 31, "Rejected", message, pause=back_off(case, in_a_row(case, "Rejected")))
    return None


def _why_released(case: Case, pod: Pod | None) -> str:
    where = f" on {pod.node}" if pod is not None and pod.node else ""
    return f"the runner{where} was asked to stop and gave the run back"


def _store_was_away(case: Case, pod: Pod) -> Decision | None:
    if decode_termination(pod.message).reason not in STORE_LOST:
        return None
    ended = pod.finished_at if pod.finished_at is not None else pod.since
    if ended >= case.obs.store.trouble_until + case.lease_seconds:
        return None
    pause = back_off(case, in_a_row(case, "StoreUnavailable") - 1)
    return takeover(case, 26, "StoreUnavailable", "none", last_words(case, pod), pause=pause)


def _exited(case: Case, pod: Pod) -> Decision:
    message = last_words(case, pod)
    if pod.disrupted:
        return disrupted(case, 29, "Disrupted", message)
    culprit = stuck(case)
    if culprit is not None:
        return no_progress(case, culprit, message)
    if pod.exit_code == 76:
        return disrupted(case, 29, "Fenced", message, pause=back_off(case, in_a_row(case, "Fenced") - 1))
    return crashed(case, 29, "OOMKilled" if pod.reason == "OOMKilled" else "Crashed", message)


# --- an attempt that has no pod, or whose pod doesn't run yet --------------------------------------


def no_pod(case: Case) -> Decision | None:
    pod, store = case.pod, case.obs.store
    if pod is not None and pod.state is not PodState.LOST:
        return None
    if pod is None and case.status.pod_ref is None and not case.acquired:
        return _create(case)
    if case.live:
        return case.decision(33, Requeue(case.expires_in + 0.05))  # gone isn't dead
    if case.acquired and case.forbearing:
        return case.decision(33, Requeue(forbearance(case)))
    what = "is lost with its node" if pod is not None else "is gone"
    name = (
        pod.name
        if pod is not None
        else case.status.pod_ref.name
        if case.status.pod_ref
        else "of this attempt"
    )
    return disrupted(case, 33, "PodGone", f"pod {name} {what}; store {store.state.value}")


def _create(case: Case) -> Decision:
    status = case.status
    wait = (status.not_before or 0.0) - case.now
    if wait > 0:
        return case.decision(32, Requeue(wait))
    started = status.attempts[-1].start if status.attempts else None
    if started is not None and case.obs.store.trouble_until > started:
        # The store may have forgotten who acquired this epoch; a new one costs nothing.
        return takeover(
            case, 32, status.cause or "StoreRestarted", "none", "the store was away before the pod was made"
        )
    return case.decision(32, CreatePod(case.epoch, status.attempt, case.avoided), Requeue(5.0))


def forbearance(case: Case) -> float:
    """Seconds until leases are judged again."""
    until = case.obs.store.until - case.now if case.obs.store.state is StoreState.GRACE else 0.0
    return max(0.05, until if until > 0 else min(case.lease_seconds, 2.0))


def starting(case: Case) -> Decision | None:
    pod = case.pod
    if pod is None:
        return None
    # The pod's times are its node's, whose clock may be behind: no attempt waited before it was made.
    made = case.status.attempts[-1].start if case.status.attempts else None
    waited = case.now - max(pod.since, made or 0.0)
    if pod.state is PodState.UNSCHEDULED:
        _say_waiting(case, pod.reason or "Scheduling", pod.message)
        return case.decision(34, *case.write(), Requeue(30.0))
    if case.acquired:
        return None
    if pod.state is PodState.RUNNING:
        if case.obs.store.state is StoreState.GRACE or waited < START_TIMEOUT:
            _say_waiting(case, "Starting", "the runner has not taken the run yet")
            return case.decision(37, Requeue(min(5.0, max(1.0, START_TIMEOUT - waited))))
        return crashed(case, 37, "StartTimeout", f"the runner did not take the run within {waited:.0f} s")
    if pod.state not in (PodState.UNACKNOWLEDGED, PodState.STARTING):
        return None
    patience = max(UNACKNOWLEDGED_PATIENCE, case.lease_seconds)
    unseen = pod.state is PodState.UNACKNOWLEDGED and waited > patience
    if unseen or not pod.node_ready:
        case.avoid(pod.node)
        why = "its kubelet has not taken the pod" if unseen else "the node is not ready"
        pause = back_off(case, in_a_row(case, "NodeLost") - 2)
        return disrupted(case, 35, "NodeLost", f"node {pod.node}: {why}", pause=pause)
    if pod.reason in NEVER_STARTS:
        return end(case, 36, "InvalidSpec", f"the runner's image can't be used: {pod.message or pod.reason}")
    _say_waiting(case, PULLING.get(pod.reason, pod.reason) or "Starting", pod.message)
    unseen_yet = pod.state is PodState.UNACKNOWLEDGED
    return case.decision(36, *case.write(), Requeue(5.0 if unseen_yet else 30.0))


def _say_waiting(case: Case, reason: str, message: str) -> None:
    """Draft Running=False; an Event when a person may have to do something about it."""
    known = case.status.condition("Running")
    new = known is None or known.reason != reason
    if reason in WORTH_TELLING and new:
        case.events.append(Event(reason, message or f"the runner's pod waits: {reason}", warning=True))
    # A message that alone differs is no news: kubelets vary theirs at every try.
    case.say("Running", "False", reason, message if new or known is None else known.message)
