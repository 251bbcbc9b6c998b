"""The engine's rules: `reduce(graph, state, tick) -> commands`. Pure of I/O and clock.

Incremental: a tick costs the same whatever the history and whatever is pending. It changes `state`
in place, so that `fold(log)` and the live engine are the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from perdure.engine import waits
from perdure.engine.graph import Graph
from perdure.engine.model import (
    WITH_CHILDREN,
    Begin,
    Child,
    ChildCommit,
    Command,
    Drain,
    Due,
    Ending,
    External,
    Failed,
    Finish,
    Halted,
    Payload,
    Publish,
    Published,
    Refused,
    Reopened,
    Returned,
    Sent,
    State,
    Takeover,
    Tick,
    Unhandled,
    Value,
    WaitBegan,
    WaitEnded,
    WaitLeft,
    Wake,
    Work,
    Wrote,
)
from perdure.engine.queues import enqueue, fill, new_work, release
from perdure.engine.streams import gather, join, leave_stream, open_stream
from perdure.events import InputRequiredEvent, StopEvent

MAX_EARLY = 1000  # events that came before anybody waited for them, and their bytes
EARLY_BYTES = 1024 * 1024
MAX_SHOWN = 10_000  # as many as a stream keeps that nobody reads
FINAL = ("Completed", "Cancelled")  # after any other end the run may be taken up where it stood


def reduce(graph: Graph, state: State, tick: Tick) -> list[Command]:
    """Apply `tick` to `state` and say what follows from it.

    A tick for work that has ended, or for a run that has, changes nothing: it came too late. Only
    `Reopened` comes after an end.
    """
    out: list[Command] = []
    if state.ending is None or type(tick) is Reopened:
        _RULES[type(tick)](graph, state, tick, out)
        if state.shown is not None:
            state.shown += [command.event for command in out if isinstance(command, Publish)]
            del state.shown[:-MAX_SHOWN]
    return out


def _end_work(graph: Graph, state: State, work: Work, out: list[Command]) -> None:
    """`work` is done with: free its slot, start the next, close the stream it was the last of."""
    del state.works[work.id]
    if work.waits:
        waits.forget(state, work)
    queue = state.steps[work.step]
    release(queue, work.id)
    if queue.queued:
        fill(graph, state, work.step, out)
    if work.stream:
        leave_stream(graph, state, work.stream, out)


def _emit(
    graph: Graph,
    state: State,
    payload: Payload,
    out: list[Command],
    *,
    stream: int = 0,
    recoveries: dict[str, int] | None = None,
    step: str | None = None,
) -> bool:
    """Deliver an event to who waits for it and to every step that accepts it, or to `step` alone.

    A step that it wakes doesn't get it as input as well. Returns whether it went anywhere.
    """
    woken = waits.answer(graph, state, payload, out) if step is None else ()
    delivered = bool(woken)
    for target in graph.route(type(payload.event)):
        if target.step in woken or (step is not None and target.step != step):
            continue
        if target.is_list:
            delivered = gather(graph, state, target, payload, out, stream) or delivered
        elif graph.steps[target.step].slots > 1:
            join(graph, state, target, payload, out, stream, recoveries)
            delivered = True
        else:
            new_work(graph, state, target.step, payload, out, stream=stream, recoveries=recoveries)
            delivered = True
    return delivered


def _unhandled(graph: Graph, payload: Payload, out: list[Command]) -> None:
    taken = graph.route(type(payload.event))
    out.append(Unhandled(payload, "it is of no list that a step returned" if taken else "no step accepts it"))


def _emit_returned(
    graph: Graph, state: State, work: Work, payload: Payload, out: list[Command], stream: int
) -> None:
    delivered = _emit(graph, state, payload, out, stream=stream, recoveries=work.recoveries)
    if isinstance(payload.event, InputRequiredEvent):
        out.append(Publish(payload))
    elif not delivered:
        _unhandled(graph, payload, out)


# --- the rules, one for each tick ---------------------------------------------------------------------


def _begin(graph: Graph, state: State, tick: Begin, out: list[Command]) -> None:
    if state.begun:
        return
    state.begun = True
    state.graph = tick.graph
    state.taken_at = state.last_time = tick.time
    _emit(graph, state, tick.start, out)


def _takeover(graph: Graph, state: State, tick: Takeover, out: list[Command]) -> None:
    state.alive += max(0.0, state.last_time - state.taken_at)
    _run_again(graph, state, tick, out)


def _reopened(graph: Graph, state: State, tick: Reopened, out: list[Command]) -> None:
    """The step that failed is tried anew, as if never before; whatever else was under way goes on."""
    ending, state.ending = state.ending, None
    if ending is not None:
        state.alive = 0.0  # or one that timed out would do so again at once
        failed = state.works.get(ending.work)
        if failed is not None:
            failed.attempts, failed.first_at, failed.retry_at, failed.failure = 0, 0.0, None, None
            for child in (failed.children or {}).values():
                child.reopened = True
    _run_again(graph, state, tick, out)


def _run_again(graph: Graph, state: State, tick: Takeover | Reopened, out: list[Command]) -> None:
    """Start what was cut off, in its old order, and re-arm every timer."""
    state.epoch = tick.epoch
    state.taken_at = state.last_time = tick.time
    state.draining = False
    for step, queue in state.steps.items():
        cut = sorted(queue.active)
        state.replayed += len(cut)
        again = sorted(queue.active | queue.waiting | queue.answered)
        if queue.answered:
            queue.queued = deque(number for number in queue.queued if number not in queue.answered)
        queue.active.clear()
        queue.waiting.clear()
        queue.answered.clear()
        queue.queued.extendleft(reversed(again))
        fill(graph, state, step, out)
    for work in state.works.values():
        if work.retry_at is not None:
            out.append(Wake(work.retry_at, work.id))


def _external(graph: Graph, state: State, tick: External, out: list[Command]) -> None:
    state.last_time = tick.time
    if tick.digest:
        state.given = _remember(state.given, tick)
    if _emit(graph, state, tick.event, out, step=tick.step):
        return
    if tick.step is None and not graph.route(type(tick.event.event)):
        # Nobody takes it yet: a wait that registers later is to find it.
        state.early.append(tick.event)
        while len(state.early) > 1 and (
            len(state.early) > MAX_EARLY or sum(early.size for early in state.early) > EARLY_BYTES
        ):
            out.append(Unhandled(state.early.pop(0), "too many came after it that no step waits for either"))
        return
    _unhandled(graph, tick.event, out)


def _refused(graph: Graph, state: State, tick: Refused, out: list[Command]) -> None:
    state.last_time = tick.time


def _remember(known: list[bytes] | None, tick: Sent | Published | External) -> list[bytes]:
    """What was given away so far; a replay that took another way forgets the rest of the old."""
    known = known if known is not None else []
    del known[tick.ordinal :]
    known.append(tick.digest)
    return known


def _sent(graph: Graph, state: State, tick: Sent, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    work.sent = _remember(work.sent, tick)
    if not _emit(graph, state, tick.event, out, recoveries=work.recoveries, step=tick.step):
        _unhandled(graph, tick.event, out)


def _published(graph: Graph, state: State, tick: Published, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    work.published = _remember(work.published, tick)
    out.append(Publish(tick.event))


def _wrote(graph: Graph, state: State, tick: Wrote, out: list[Command]) -> None:
    if tick.op == "delete":
        state.store.pop(tick.key, None)
    elif tick.op == "append":
        state.store[tick.key].items.extend(tick.items)
    else:
        state.store[tick.key] = Value(items=list(tick.items), is_list=tick.op == "list")


def _returned(graph: Graph, state: State, tick: Returned, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    state.completed += 1
    state.last_step = work.step
    state.last_time = state.progressed_at = tick.time
    if tick.added or tick.taken:
        _settle_claims(state, work, tick)
    stream = open_stream(state, work) if tick.many else work.stream
    for payload in tick.events:
        if isinstance(payload.event, StopEvent):
            _finish(state, Ending(reason="Completed", step=work.step, stop=payload), out)
            return
        _emit_returned(graph, state, work, payload, out, stream)
    if tick.many:
        leave_stream(graph, state, stream, out)
    _end_work(graph, state, work, out)


def _settle_claims(state: State, work: Work, tick: Returned) -> None:
    """What `collect_events` did in this invocation is final now that it completed."""
    for buffer, claims in tick.added.items():
        kept = [c for c in claims if (buffer, c.ordinal) not in work.spent] if work.spent else claims
        state.buffers.setdefault(buffer, []).extend(kept)
    for buffer, taken in tick.taken.items():
        gone = set(taken)
        kept = [c for c in state.buffers.get(buffer, []) if (c.work, c.ordinal) not in gone]
        present = {(c.work, c.ordinal) for c in state.buffers.get(buffer, [])}
        for number, ordinal in gone - present:
            # Added by an invocation that is still open: should it be run again, it must not add twice.
            other = state.works.get(number)
            if other is not None and number != work.id:
                other.spent = [*(other.spent or []), (buffer, ordinal)]
        if kept:
            state.buffers[buffer] = kept
        else:
            state.buffers.pop(buffer, None)


def _failed(graph: Graph, state: State, tick: Failed, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    state.last_time = tick.time
    work.failure = tick.failure
    work.first_at = tick.first_at
    work.failed_at = tick.time
    if tick.retry_at is not None:
        work.attempts += 1
        work.retry_at = tick.retry_at
        # A retry is a new try: what it sends is sent, and its children begin anew.
        work.sent = work.published = work.children = None
        release(state.steps[work.step], work.id)
        out.append(Wake(tick.retry_at, work.id))
        fill(graph, state, work.step, out)
        return
    handler = graph.steps[work.step].handler
    if tick.recovery is None or handler is None:
        _finish(
            state,
            Ending(
                reason="StepFailed",
                message=tick.failure.message,
                step=work.step,
                failure=tick.failure,
                work=work.id,
            ),
            out,
        )
        return
    recoveries = dict(work.recoveries or {})
    recoveries[handler] = recoveries.get(handler, 0) + 1
    new_work(graph, state, handler, tick.recovery, out, stream=work.stream, recoveries=recoveries)
    _end_work(graph, state, work, out)


def _due(graph: Graph, state: State, tick: Due, out: list[Command]) -> None:
    state.last_time = tick.time
    work = state.works.get(tick.work)
    if work is None or work.retry_at is None:
        return
    work.retry_at = None
    enqueue(graph, state, work, out, head=True)


def _child_committed(graph: Graph, state: State, tick: ChildCommit, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    state.format = WITH_CHILDREN
    state.last_time = tick.time
    if tick.completed:
        state.completed += tick.completed
        state.progressed_at = tick.time
    if work.children is None:
        work.children = {}
    child = work.children.get(tick.child)
    if child is None:
        child = work.children[tick.child] = Child(snapshot=None, records=[])
    child.reopened = False
    for sign, name, _ in tick.flight:
        if sign == "+":
            child.flight.add(name)
        elif sign == "-":
            child.flight.discard(name)
    if tick.snapshot is not None:
        child.snapshot, child.records = tick.snapshot, []
    else:
        child.records.append(tick.ticks)


def _drain(graph: Graph, state: State, tick: Drain, out: list[Command]) -> None:
    state.last_time = tick.time
    state.draining = True


def _halted(graph: Graph, state: State, tick: Halted, out: list[Command]) -> None:
    state.last_time = tick.time
    ending = Ending(reason=tick.reason, message=tick.message, stop=tick.event)
    if tick.resumable:
        # The run stops here, and what it was doing stays in the state: it can be taken up again.
        out.append(Finish(ending))
        return
    _finish(state, ending, out)


def _finish(state: State, ending: Ending, out: list[Command]) -> None:
    state.ending = ending
    if ending.reason in FINAL:
        state.works.clear()
        state.steps.clear()
        state.streams.clear()
        state.joins.clear()
        state.buffers.clear()
        state.early.clear()
        state.awaited.clear()
        state.index = None
    out.append(Finish(ending))


_RULES: dict[type, Callable[[Graph, State, Any, list[Command]], None]] = {
    Begin: _begin,
    Takeover: _takeover,
    Reopened: _reopened,
    External: _external,
    Refused: _refused,
    Sent: _sent,
    Published: _published,
    Wrote: _wrote,
    Returned: _returned,
    Failed: _failed,
    Due: _due,
    WaitBegan: waits.began,
    WaitEnded: waits.ended,
    WaitLeft: waits.left,
    Drain: _drain,
    Halted: _halted,
    ChildCommit: _child_committed,
}
