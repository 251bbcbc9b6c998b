"""The store's facts copied into the status: progress while a run is live, its outcome at the end."""

from __future__ import annotations

import json

from perdure.control.actions import Event
from perdure.control.case import Case
from perdure.control.outcome import Outcome, decode_outcome, decode_summary
from perdure.control.status import (
    Failure,
    LastCheckpoint,
    Progress,
    ResultRef,
    WorkflowRunStatus,
)
from perdure.store.base import Meta
from perdure.store.durability import judge

PROGRESS_INTERVAL = 5.0
MAX_RESULT_BYTES = 4096
MAX_TRACEBACK = 4096
MAX_MESSAGE = 1024


def copy_progress(case: Case, meta: Meta) -> None:
    """Draft progress, lastCheckpoint and replayedSteps as of `meta`."""
    summary = decode_summary(meta.summary)
    case.change(
        progress=Progress(
            completed_steps=summary.completed_steps,
            active_steps=[step[:128] for step in summary.active_steps[:8]],
            pending_events=summary.pending_events,
            last_step=summary.last_step[:253],
            last_progress_time=summary.last_progress_time,
            observed_time=case.now,
        ),
        last_checkpoint=LastCheckpoint(
            seq=meta.seq,
            time=meta.commit_time or None,
            bytes=meta.log_bytes + meta.snapshot_bytes,
        ),
        replayed_steps=max(case.draft.replayed_steps, summary.replayed_steps),
    )


def copy_durability(case: Case) -> None:
    """Draft StoreDurable: whether the store keeps what it acknowledges, and what may be lost if not."""
    said = judge(case.obs.store.doubts, case.spec.checkpoint.replicas)
    case.say("StoreDurable", said.status, said.reason, said.message)


def copy_restarts(case: Case, meta: Meta) -> None:
    """Draft storeRestarts; an Event when there is a new one."""
    if meta.restarts <= case.draft.store_restarts:
        return
    case.change(store_restarts=meta.restarts)
    message = (
        "the store was restarted since the run was last taken, and doesn't sync every write to its disk: what it "
        "acknowledged last may be lost, and is then done again"
    )
    case.events.append(Event("StoreRestarted", message, warning=True))


def copy_recovery(case: Case, meta: Meta) -> list[Event]:
    """Draft recoverySeconds at the first progress of an attempt that took over."""
    if not case.draft.attempts:
        return []
    last = case.draft.attempts[-1]
    began = last.predecessor_end
    if last.epoch != case.epoch or began is None or last.recovery_seconds is not None:
        return []
    if meta.step_seq <= last.start_step_seq:
        return []
    ago = max(0.0, case.obs.store.store_now - meta.commit_time) if meta.commit_time else 0.0
    seconds = round(max(0.0, case.now - ago - began), 3)
    case.change(attempts=[*case.draft.attempts[:-1], last.model_copy(update={"recovery_seconds": seconds})])
    where = f" on {last.node}" if last.node else ""
    return [
        Event(
            "Resumed",
            f"attempt {last.attempt}{where} made progress {seconds:.1f} s after its predecessor's end "
            f"({case.draft.cause or 'unknown cause'})",
        )
    ]


def copy_outcome(case: Case, meta: Meta, data: bytes) -> tuple[list[Event], tuple[WorkflowRunStatus, ...]]:
    """Draft the run's end from what stands in the store; its events, and smaller statuses to fall back on."""
    outcome = decode_outcome(data)
    events = copy_recovery(case, meta)
    copy_progress(case, meta)
    pod = case.pod
    if case.draft.attempts:
        last = case.draft.attempts[-1]
        ended = last.end or (pod.finished_at if pod is not None else None) or case.now
        done = last.model_copy(update={"end": ended, "reason": last.reason or outcome.reason})
        case.change(attempts=[*case.draft.attempts[:-1], done])
    case.change(
        epoch=max(case.epoch, meta.epoch),
        completion_time=case.now,
        pod_ref=case.draft.pod_ref,
        store_trouble=None,
        **_result(outcome, len(data)),
        failure=None if outcome.completed else _failure(case, outcome),
    )
    message = outcome.message[:MAX_MESSAGE]
    case.say("StoreReady", "True", "Ready")
    finish(case, outcome.reason, message)
    events.append(Event(outcome.reason, message or _told(case, outcome), warning=not outcome.completed))
    return events, _fallbacks(case)


def finish(case: Case, reason: str, message: str) -> None:
    """Draft the conditions of an end; Succeeded is True for Completed alone."""
    case.say("Running", "False", reason)
    if case.draft.condition("Waiting") is not None:
        case.say("Waiting", "False", reason)
    case.say("Succeeded", "True" if reason == "Completed" else "False", reason, message)
    case.say("Finished", "True", reason, message)


def _told(case: Case, outcome: Outcome) -> str:
    steps = case.draft.progress.completed_steps
    text = f"{outcome.reason} after {case.draft.attempt} attempt(s), {steps} steps"
    if case.draft.failure is not None and case.draft.failure.message:
        text += f": {case.draft.failure.message}"
    return text[:MAX_MESSAGE]


def _result(outcome: Outcome, bytes_stored: int) -> dict[str, object]:
    if not outcome.completed:
        return {"result": None, "result_ref": None}
    try:
        size = len(json.dumps(outcome.result, ensure_ascii=False, separators=(",", ":")).encode())
    except RecursionError:  # nested too deeply for an API server as well
        return {"result": None, "result_ref": ResultRef(bytes=bytes_stored)}
    if size <= MAX_RESULT_BYTES:
        return {"result": outcome.result, "result_ref": None}
    return {"result": None, "result_ref": ResultRef(bytes=size)}


def _failure(case: Case, outcome: Outcome) -> Failure:
    def text(key: str) -> str:
        value = outcome.failure.get(key)
        return value if isinstance(value, str) else ""

    return Failure(
        reason=outcome.reason,
        step=text("step")[:253],
        exception_type=text("exceptionType")[:253],
        message=(text("message") or outcome.message)[:MAX_MESSAGE],
        traceback=_cut(text("traceback"), MAX_TRACEBACK),
        exit_code=case.draft.attempts[-1].exit_code if case.draft.attempts else None,
    )


def _cut(text: str, size: int) -> str:
    """Its beginning and its end: where it broke, and why, however long the message is."""
    mark = "\n[...]\n"
    tail = (size - len(mark)) // 2
    return text if len(text) <= size else text[: size - len(mark) - tail] + mark + text[-tail:]


def _fallbacks(case: Case) -> tuple[WorkflowRunStatus, ...]:
    """An end must reach the resource even when the API refuses the rest of it."""
    full = case.settled()
    failure = full.failure
    smaller = full.model_copy(
        update={
            "result": None,
            "result_ref": full.result_ref or (ResultRef() if full.result is not None else None),
            "failure": None
            if failure is None
            else failure.model_copy(update={"message": failure.message[:200], "traceback": ""}),
            "attempts": full.attempts[-1:],
            "code": {},
            "avoid_nodes": [],
        }
    )
    least = WorkflowRunStatus(
        observed_generation=full.observed_generation,
        conditions=[one.model_copy(update={"message": ""}) for one in full.conditions],
        phase=full.phase,
        completion_time=full.completion_time,
        epoch=full.epoch,
        attempt=full.attempt,
        store_id=full.store_id,
    )
    return smaller, least
