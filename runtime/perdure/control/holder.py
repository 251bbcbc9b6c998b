"""Rows 38 to 41: an attempt that has the run, by what its lease says."""

from __future__ import annotations

from perdure.control.actions import Decision, Event, Requeue
from perdure.control.attempt import forbearance
from perdure.control.case import MANY_SILENT, Case
from perdure.control.copying import PROGRESS_INTERVAL, copy_durability, copy_progress, copy_recovery
from perdure.control.outcome import decode_summary
from perdure.control.transitions import back_off, disrupted, in_a_row, no_progress, stuck
from perdure.store.base import Meta


def silent(case: Case) -> Decision | None:
    if not case.silent:
        return None
    pod = case.pod
    node = pod.node if pod is not None else ""
    message = f"runner on {node or 'an unknown node'} has not renewed its lease of {case.lease_seconds:g} s"
    culprit = stuck(case)
    if culprit is not None:
        return no_progress(case, culprit, message)
    case.avoid(node)
    pause = back_off(case, in_a_row(case, "LeaseExpired") - 2)
    return disrupted(case, 38, "LeaseExpired", message, pause=pause)


def live(case: Case, meta: Meta) -> Decision | None:
    if not case.acquired:
        return None
    if not case.live:
        ready = case.draft.condition("StoreReady")
        if case.obs.store.crowd and (ready is None or ready.reason != MANY_SILENT):
            message = "most runs of the store fell silent together: nobody is judged for one more lease"
            case.say("StoreReady", "Unknown", MANY_SILENT, message)
            case.events.append(Event(MANY_SILENT, message, warning=True))
        return case.decision(39, Requeue(forbearance(case)))
    pod = case.pod
    running = case.status.condition("Running")
    if pod is not None and pod.deleting:
        case.say("Running", "True", "Terminating", "the pod is being deleted; the run will be given back")
        return case.decision(40, *case.write(), Requeue(max(0.05, min(case.expires_in, 1.0))))
    if running is None or running.status != "True":
        where = f" on {pod.node}" if pod is not None and pod.node else ""
        case.events.append(
            Event("Started", f"attempt {case.draft.attempt}{where} has the run, at seq {meta.seq}")
        )
    case.say("Running", "True", "Running")
    copy_durability(case)
    _say_idle(case, meta)
    return _progress(case, meta)


def _say_idle(case: Case, meta: Meta) -> None:
    summary = decode_summary(meta.summary)
    if summary.waiting:
        wakes = ", ".join(name[:128] for name in summary.wakes[:8])
        message = f"no step runs until an event or a timer; events that would wake it: {wakes or 'none'}"
        case.say("Waiting", "True", "EventOrTimer", message)
    elif case.draft.condition("Waiting") is not None:
        case.say("Waiting", "False", "Active")


def _progress(case: Case, meta: Meta) -> Decision:
    case.events += copy_recovery(case, meta)
    before = case.draft
    copy_progress(case, meta)
    last = case.status.progress.observed_time
    due = 0.0 if last is None else last + PROGRESS_INTERVAL - case.now
    seen = case.draft.progress.model_copy(update={"observed_time": last})
    news = before != case.status or seen != case.status.progress
    news = news or case.draft.last_checkpoint != case.status.last_checkpoint
    news = news or case.obs.generation != case.status.observed_generation
    at_once = bool(case.events) or before.conditions != case.status.conditions
    wait = case.expires_in + 0.05
    if news and (due <= 0 or at_once):
        return case.decision(41, *case.write(), Requeue(wait))
    case.draft = before  # not yet: the interval keeps the API server from a write per step
    return case.decision(41, Requeue(min(wait, due) if news else wait))
