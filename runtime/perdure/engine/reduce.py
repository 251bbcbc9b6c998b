"""The engine's rules: `reduce(graph, state, tick) -> commands`. Pure of I/O and clock.

Incremental: a tick costs the same whatever the history and whatever is pending. It changes `state`
in place, so that `fold(log)` and the live engine are the same code.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from perdure.engine.graph import Graph, Target
from perdure.engine.model import (
    Begin,
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
    Resume,
    Returned,
    Sent,
    Start,
    State,
    StepQueue,
    Stream,
    Takeover,
    Tick,
    Unhandled,
    Value,
    Wait,
    WaitBegan,
    WaitEnded,
    Wake,
    Work,
    Wrote,
)
from perdure.events import InputRequiredEvent, StopEvent

MAX_EARLY = 1000


def reduce(graph: Graph, state: State, tick: Tick) -> list[Command]:
    """Apply `tick` to `state` and say what follows from it.

    A tick for work that has ended, or for a run that has, changes nothing: it came too late.
    """
    out: list[Command] = []
    if state.ending is None:
        _RULES[type(tick)](graph, state, tick, out)
    return out


# --- queues and worker slots ------------------------------------------------------------------------


def _queue(state: State, step: str) -> StepQueue:
    queue = state.steps.get(step)
    if queue is None:
        queue = state.steps[step] = StepQueue(queued=deque(), active=set(), waiting=set())
    return queue


def _enqueue(graph: Graph, state: State, work: Work, out: list[Command], *, head: bool = False) -> None:
    queue = _queue(state, work.step)
    if len(queue.active) < graph.steps[work.step].limit and not state.draining and not (queue.queued):
        queue.active.add(work.id)
        out.append(Start(work))
    elif head:
        queue.queued.appendleft(work.id)
        _fill(graph, state, work.step, out)
    else:
        queue.queued.append(work.id)


def _fill(graph: Graph, state: State, step: str, out: list[Command]) -> None:
    """Give free worker slots of `step` to the head of its queue."""
    if state.draining:
        return
    queue = _queue(state, step)
    limit = graph.steps[step].limit
    while queue.queued and len(queue.active) < limit:
        number = queue.queued.popleft()
        queue.active.add(number)
        work = state.works[number]
        if number in queue.waiting:
            queue.waiting.discard(number)
            out.append(Resume(work))
        else:
            out.append(Start(work))


def _new_work(
    graph: Graph,
    state: State,
    step: str,
    events: list[Payload],
    out: list[Command],
    *,
    stream: int = 0,
    recoveries: dict[str, int] | None = None,
) -> None:
    work = Work(id=state.next_id, step=step, events=events, stream=stream, recoveries=recoveries)
    state.next_id += 1
    state.works[work.id] = work
    if stream:
        state.streams[stream].open += 1
    _enqueue(graph, state, work, out)


def _end_work(graph: Graph, state: State, work: Work, out: list[Command]) -> None:
    """`work` is done with: free its slot, start the next, close the stream it was the last of."""
    del state.works[work.id]
    queue = state.steps[work.step]
    queue.active.discard(work.id)
    queue.waiting.discard(work.id)
    if queue.queued:
        _fill(graph, state, work.step, out)
    if work.stream:
        _leave_stream(graph, state, work.stream, out)


# --- routing and streams ----------------------------------------------------------------------------


def _emit(
    graph: Graph,
    state: State,
    payload: Payload,
    out: list[Command],
    *,
    stream: int = 0,
    recoveries: dict[str, int] | None = None,
    step: str | None = None,
) -> None:
    """Deliver an event to every step that accepts it, or to `step` alone."""
    event = payload.event
    targets = graph.route(type(event))
    if step is not None:
        targets = tuple(t for t in targets if t.step == step)
    delivered = False
    for target in targets:
        if target.is_list:
            delivered = _gather(graph, state, target, payload, out, stream) or delivered
        elif graph.steps[target.step].slots > 1:
            _join(graph, state, target, payload, out, stream, recoveries)
            delivered = True
        else:
            _new_work(graph, state, target.step, [payload], out, stream=stream, recoveries=recoveries)
            delivered = True
    if isinstance(event, InputRequiredEvent):
        out.append(Publish(payload))
    elif not delivered:
        reason = "it is of no list that a step returned" if targets else "no step accepts it"
        out.append(Unhandled(payload, reason))


def _gather(
    graph: Graph, state: State, target: Target, payload: Payload, out: list[Command], number: int
) -> bool:
    if not number:
        return False
    stream = state.streams[number]
    items = stream.items.setdefault(target.step, [])
    if target.step in stream.released:
        return True
    items.append(payload)
    if target.take is not None and len(items) == target.take:
        stream.released.add(target.step)
        stream.items[target.step] = []
        _new_work(graph, state, target.step, items, out, stream=stream.parent)
    return True


def _join(
    graph: Graph,
    state: State,
    target: Target,
    payload: Payload,
    out: list[Command],
    stream: int,
    recoveries: dict[str, int] | None,
) -> None:
    """Keep the event until each parameter of the step has one, per stream."""
    key = f"{target.step}/{stream}"
    slots = state.joins.get(key)
    if slots is None:
        slots = state.joins[key] = [[] for _ in range(graph.steps[target.step].slots)]
    slots[target.slot].append(payload)
    if all(slots):
        events = [slot.pop(0) for slot in slots]
        if not any(slots):
            del state.joins[key]
        _new_work(graph, state, target.step, events, out, stream=stream, recoveries=recoveries)


def _open_stream(state: State, work: Work) -> int:
    number = state.next_id
    state.next_id += 1
    # It is open once for its producer, until all of the list is out, so that it can't close between.
    state.streams[number] = Stream(producer=work.step, parent=work.stream, open=1, items={}, released=set())
    if work.stream:
        state.streams[work.stream].open += 1
    return number


def _leave_stream(graph: Graph, state: State, number: int, out: list[Command]) -> None:
    """One descendant less; the last closes the stream, which calls the steps that take its list."""
    stream = state.streams[number]
    stream.open -= 1
    if stream.open:
        return
    del state.streams[number]
    steps = dict.fromkeys(graph.collectors.get(stream.producer, ()))
    steps.update(dict.fromkeys(stream.items))
    for step in steps:
        state.joins.pop(f"{step}/{number}", None)
        if step not in stream.released:
            _new_work(graph, state, step, stream.items.get(step, []), out, stream=stream.parent)
    if stream.parent:
        _leave_stream(graph, state, stream.parent, out)


# --- the rules, one for each tick ---------------------------------------------------------------------


def _begin(graph: Graph, state: State, tick: Begin, out: list[Command]) -> None:
    if state.begun:
        return
    state.begun = True
    state.graph = tick.graph
    state.taken_at = state.last_time = tick.time
    _emit(graph, state, tick.start, out)


def _takeover(graph: Graph, state: State, tick: Takeover, out: list[Command]) -> None:
    """Run again what was cut off, in its old order, and re-arm every timer."""
    state.epoch = tick.epoch
    state.alive += max(0.0, state.last_time - state.taken_at)
    state.taken_at = state.last_time = tick.time
    state.draining = False
    for step, queue in state.steps.items():
        cut = sorted(queue.active)
        state.replayed += len(cut)
        again = sorted(queue.active | queue.waiting)
        answered = [number for number in queue.queued if number in queue.waiting]
        for number in answered:
            queue.queued.remove(number)
        queue.active.clear()
        queue.waiting.clear()
        queue.queued.extendleft(reversed(again))
        _fill(graph, state, step, out)
    for work in state.works.values():
        if work.retry_at is not None:
            out.append(Wake(work.retry_at, work.id))


def _external(graph: Graph, state: State, tick: External, out: list[Command]) -> None:
    woken = False
    event = tick.event.event
    if tick.step is None:
        woken = _answer(graph, state, tick.event, out)
    takers = graph.route(type(event))
    if takers or not woken:
        if not takers and tick.step is None:
            # Nobody takes it yet: a wait that registers later is to find it.
            state.early.append(tick.event)
            del state.early[:-MAX_EARLY]
            return
        _emit(graph, state, tick.event, out, step=tick.step)


def _remember(known: list[bytes] | None, tick: Sent | Published) -> list[bytes]:
    """What the invocation gave away so far; a replay that took another way forgets the rest of the old."""
    known = known if known is not None else []
    del known[tick.ordinal :]
    known.append(tick.digest)
    return known


def _sent(graph: Graph, state: State, tick: Sent, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    work.sent = _remember(work.sent, tick)
    woken = tick.step is None and _answer(graph, state, tick.event, out)
    if woken and not graph.route(type(tick.event.event)):
        return
    _emit(graph, state, tick.event, out, recoveries=work.recoveries, step=tick.step)


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
    state.last_time = tick.time
    if tick.added or tick.taken:
        _settle_claims(state, work, tick)
    if tick.many:
        stream = _open_stream(state, work)
        for payload in tick.events:
            _emit(graph, state, payload, out, stream=stream, recoveries=work.recoveries)
        _leave_stream(graph, state, stream, out)
    else:
        for payload in tick.events:
            if isinstance(payload.event, StopEvent):
                _finish(state, Ending(reason="Completed", step=work.step, stop=payload), out)
                return
            _emit(graph, state, payload, out, stream=work.stream, recoveries=work.recoveries)
    _end_work(graph, state, work, out)


def _settle_claims(state: State, work: Work, tick: Returned) -> None:
    """What `collect_events` did in this invocation is final now that it completed."""
    spent = set(work.spent or ())
    for buffer, claims in tick.added.items():
        kept = [c for c in claims if (buffer, c.ordinal) not in spent]
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
    work.failure = tick.failure
    work.first_at = tick.first_at
    work.failed_at = tick.time
    if tick.retry_at is not None:
        work.attempts += 1
        work.retry_at = tick.retry_at
        work.sent = work.published = None  # a retry is a new try: what it sends is sent
        state.steps[work.step].active.discard(work.id)
        out.append(Wake(tick.retry_at, work.id))
        _fill(graph, state, work.step, out)
        return
    handler = graph.steps[work.step].handler
    if tick.recovery is None or handler is None:
        _finish(
            state,
            Ending(reason="StepFailed", message=tick.failure.message, step=work.step, failure=tick.failure),
            out,
        )
        return
    recoveries = dict(work.recoveries or {})
    recoveries[handler] = recoveries.get(handler, 0) + 1
    _new_work(graph, state, handler, [tick.recovery], out, stream=work.stream, recoveries=recoveries)
    _end_work(graph, state, work, out)


def _due(graph: Graph, state: State, tick: Due, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None or work.retry_at is None:
        return
    work.retry_at = None
    _enqueue(graph, state, work, out, head=True)


def _wait_began(graph: Graph, state: State, tick: WaitBegan, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    wait = Wait(type=tick.kind, requirements=tick.requirements, deadline=tick.deadline)
    if work.waits is None:
        work.waits = {}
    again = tick.key in work.waits
    if again:
        wait.deadline = work.waits[tick.key].deadline
    work.waits[tick.key] = wait
    if tick.prompt is not None and not again:
        out.append(Publish(tick.prompt))
    for index, payload in enumerate(state.early):
        if _matches(wait, payload):
            wait.event = payload
            del state.early[index]
            break
    queue = state.steps[work.step]
    if wait.event is not None:
        out.append(Resume(work))
        return
    queue.active.discard(work.id)
    queue.waiting.add(work.id)
    if wait.deadline is not None:
        out.append(Wake(wait.deadline, work.id, tick.key))
    _fill(graph, state, work.step, out)


def _wait_ended(graph: Graph, state: State, tick: WaitEnded, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    wait = (work.waits or {}).get(tick.key) if work is not None else None
    if work is None or wait is None or wait.event is not None or wait.over:
        return
    wait.event, wait.over = tick.event, tick.event is None
    _requeue_waiter(graph, state, work, out)


def _requeue_waiter(graph: Graph, state: State, work: Work, out: list[Command]) -> None:
    # A live waiter holds no worker slot; it has to take one again before it goes on.
    queue = state.steps[work.step]
    if work.id in queue.active:
        out.append(Resume(work))
    elif work.id not in queue.queued:
        queue.queued.appendleft(work.id)
        _fill(graph, state, work.step, out)


def _answer(graph: Graph, state: State, payload: Payload, out: list[Command]) -> bool:
    """Give `payload` to every wait that it answers."""
    woken = False
    for queue in list(state.steps.values()):
        for number in sorted(queue.waiting):
            work = state.works[number]
            for wait in (work.waits or {}).values():
                if wait.event is None and not wait.over and _matches(wait, payload):
                    wait.event = payload
                    woken = True
                    _requeue_waiter(graph, state, work, out)
                    break  # two waits of one invocation don't both take the first event
    return woken


def type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _matches(wait: Wait, payload: Payload) -> bool:
    event = payload.event
    if type_name(type(event)) != wait.type:
        return False
    if wait.requirements is None:
        return True
    wanted: dict[str, Any] = json.loads(wait.requirements)
    return all(getattr(event, name, None) == value for name, value in wanted.items())


def _drain(graph: Graph, state: State, tick: Drain, out: list[Command]) -> None:
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
    state.works.clear()
    state.steps.clear()
    state.streams.clear()
    state.joins.clear()
    state.buffers.clear()
    state.early.clear()
    out.append(Finish(ending))


_RULES: dict[type, Callable[[Graph, State, Any, list[Command]], None]] = {
    Begin: _begin,
    Takeover: _takeover,
    External: _external,
    Sent: _sent,
    Published: _published,
    Wrote: _wrote,
    Returned: _returned,
    Failed: _failed,
    Due: _due,
    WaitBegan: _wait_began,
    WaitEnded: _wait_ended,
    Drain: _drain,
    Halted: _halted,
}
