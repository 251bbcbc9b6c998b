"""What ends an attempt or the run: the takeover, the end, and what counts against them."""

from __future__ import annotations

from typing import Literal

from perdure.control.actions import (
    Action,
    AdvanceEpoch,
    CreatePod,
    Decision,
    Event,
    Finish,
    Requeue,
)
from perdure.control.case import KEPT_ATTEMPTS, Case
from perdure.control.observation import Pod, PodState
from perdure.control.outcome import decode_termination
from perdure.control.status import Attempt
from perdure.store.base import InFlight

Kind = Literal["failure", "disruption", "none"]


def back_off(case: Case, times: int) -> float:
    """Seconds to wait after the `times`-th in a row; 0 for none."""
    if times < 1:
        return 0.0
    recovery = case.spec.recovery
    return float(min(recovery.max_backoff_seconds, recovery.backoff_seconds * 2 ** min(times - 1, 30)))


def in_a_row(case: Case, cause: str) -> int:
    """The how-manyth takeover for `cause` this one is, with no progress between them."""
    return case.draft.cause_count + 1 if case.draft.cause == cause else 1


def takeover(case: Case, row: int, cause: str, kind: Kind, message: str, *, pause: float = 0.0) -> Decision:
    """A new epoch: the status first, then the fence, then the successor. pause: seconds of back-off."""
    draft = case.draft
    failures = draft.failures + (kind == "failure")
    if kind == "failure":
        pause = back_off(case, failures)
    not_before = case.now + pause
    epoch, attempt = case.next_epoch, draft.attempt + 1
    died = _death(case)
    predecessor_end, attempts = died, list(draft.attempts)
    if attempts:
        last = attempts[-1]
        had_the_run = case.acquired or case.released or last.recovery_seconds is not None
        if not had_the_run and last.predecessor_end is not None:
            predecessor_end = last.predecessor_end  # the run has stood still since then
        attempts[-1] = last.model_copy(update={"end": last.end or died, "reason": cause})
    fresh = Attempt(
        attempt=attempt,
        epoch=epoch,
        start=case.now,
        predecessor_end=predecessor_end,
        start_step_seq=case.meta.step_seq if case.meta is not None else 0,
    )
    old = case.pod
    case.change(
        epoch=epoch,
        attempt=attempt,
        attempts=[*attempts, fresh][-KEPT_ATTEMPTS:],
        failures=failures,
        disruptions=draft.disruptions + (kind == "disruption"),
        not_before=not_before if pause > 0 else None,
        pod_ref=None,
        cause_count=in_a_row(case, cause),
        cause=cause,
    )
    case.say("Running", "False", cause, message)
    if case.draft.condition("Waiting") is not None:
        case.say("Waiting", "False", cause)
    when = f" in {pause:g} s" if pause > 0 else ""
    told = Event(
        "TakeoverStarted", f"{cause}: {message}; attempt {attempt} follows{when}", warning=kind != "none"
    )
    actions: list[Action] = [*case.write(told), AdvanceEpoch(epoch, cause)]
    if pause <= 0:
        actions.append(CreatePod(epoch, attempt, case.avoided))
    if old is not None and old.state is not PodState.FINISHED:
        actions += case.delete([old])
    return case.decision(row, *actions, Requeue(pause if pause > 0 else 1.0))


def _death(case: Case) -> float:
    pod = case.pod
    if pod is not None and case.dead:
        return pod.finished_at if pod.finished_at is not None else case.now
    if case.acquired and not case.live and not case.released:
        return case.now - case.lease_seconds  # silent: it may have died right after its last renewal
    return case.now


def end(case: Case, row: int, reason: str, message: str = "", *, step: str = "") -> Decision:
    """The outcome into the store, if there is none yet; the status is copied from what stands there."""
    failure: dict[str, object] = {"message": message} if message else {}
    if step:
        failure["step"] = step
    pod = case.pod
    gone = [pod] if pod is not None and pod.state is not PodState.FINISHED else []  # a finished one has logs
    return case.decision(
        row, Finish(case.next_epoch, reason, message, failure), *case.delete(gone, grace=0), Requeue(0.0)
    )


def disrupted(case: Case, row: int, cause: str, message: str, *, pause: float = 0.0) -> Decision:
    """A takeover that is not the workflow's fault, unless there were too many."""
    limit = case.spec.recovery.max_disruptions
    if limit is not None and case.draft.disruptions + 1 > limit:
        return end(
            case,
            30,
            "DisruptionsExhausted",
            f"{message}; more than recovery.maxDisruptions ({limit}) disruptions",
        )
    return takeover(case, row, cause, "disruption", message, pause=pause)


def stuck(case: Case) -> InFlight | None:
    """An invocation that one more cut brings to the limit. A runner that never had the run cut nothing."""
    if case.meta is None or not case.acquired:
        return None
    limit = case.spec.recovery.max_failures
    return next((one for one in case.meta.in_flight if one.cuts + 1 >= limit), None)


def no_progress(case: Case, culprit: InFlight, message: str) -> Decision:
    told = (
        f"step {culprit.step} was cut off {culprit.cuts + 1} times without completing or writing state "
        f"(recovery.maxFailures is {case.spec.recovery.max_failures}); the last time: {message}"
    )
    return end(case, 30, "NoProgress", told, step=culprit.step)


def crashed(case: Case, row: int, cause: str, message: str) -> Decision:
    """A death that is held against the run."""
    culprit = stuck(case)
    if culprit is not None:
        return no_progress(case, culprit, message)
    if case.draft.failures + 1 >= case.spec.recovery.max_failures:
        told = (
            f"{case.draft.failures + 1} failures since a step last completed or wrote state "
            f"(recovery.maxFailures is {case.spec.recovery.max_failures}); the last: {message}"
        )
        return end(case, 30, "FailuresExhausted", told)
    return takeover(case, row, cause, "failure", message)


def last_words(case: Case, pod: Pod) -> str:
    """How the pod's runner ended, for people."""
    words = decode_termination(pod.message)
    where = f" on {pod.node}" if pod.node else ""
    text = f"runner{where} exited with {pod.exit_code if pod.exit_code is not None else 'no code'}"
    if pod.reason and pod.reason not in ("Error", "Completed"):
        text += f" ({pod.reason})"
    if pod.reason == "OOMKilled":
        limit = case.spec.template.resources.limits.get("memory")
        text += f"; its memory limit is {limit}" if limit else "; it has no memory limit, so its node ran out"
    said = ": ".join(part for part in (words.reason, words.message) if part)
    return f"{text}; it said {said}" if said else text


def pod_refused(case: Case, code: int, message: str) -> Decision:
    """What to do when the API refused to create the attempt's pod; for whoever applies CreatePod.

    code: the HTTP status; 409 means that the name belongs to another's pod.
    """
    if code == 422 and case.draft.attempt <= 1:
        return end(case, 32, "InvalidSpec", f"Kubernetes refuses the runner's pod: {message}")
    reason = "PodNameTaken" if code == 409 else "PodRefused"
    known = case.status.condition("Running")
    events = [] if known is not None and known.reason == reason else [Event(reason, message, warning=True)]
    case.say("Running", "False", reason, message)
    return case.decision(32, *case.write(*events), Requeue(10.0, error=True))
