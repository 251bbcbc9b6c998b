"""Waits of running steps: open, answered, over or left; and what came before anybody waited for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from typing import Any

from perdure.engine.graph import Graph
from perdure.engine.index import WaitIndex
from perdure.engine.model import (
    Command,
    Payload,
    Publish,
    State,
    Wait,
    WaitBegan,
    WaitEnded,
    WaitLeft,
    Wake,
    Work,
)
from perdure.engine.queues import fill, release, resume
from perdure.naming import qualified_name

_NOBODY: frozenset[str] = frozenset()
_NO_WORKS: Set[int] = frozenset()
FEW = 8  # waits for a type that are asked one by one


def is_waiting(state: State, rests: Callable[[int], bool] = lambda _: False) -> bool:
    """Whether the run goes on and no step runs, or could: only the outside or a timer brings it on.

    rests: whether an execution that holds a slot does no more than those that wait.
    """
    if not state.begun or state.ending is not None:
        return False
    return all(not queue.queued and all(map(rests, queue.active)) for queue in state.steps.values())


def would_wake(graph: Graph, state: State) -> list[str]:
    """The names of the event types that would bring the run on while it waits."""
    if not state.works:
        return graph.taken
    return sorted({name.rpartition(".")[2] for name in state.awaited} | set(graph.human))


def began(graph: Graph, state: State, tick: WaitBegan, out: list[Command]) -> None:
    work = state.works.get(tick.work)
    if work is None:
        return
    wait = Wait(type=tick.kind, requirements=tick.requirements, deadline=tick.deadline)
    if work.waits is None:
        work.waits = {}
    known = work.waits.get(tick.key)
    if known is not None:
        wait.deadline = known.deadline
        if _is_open(known):
            _unlist(state, work, known)
    work.waits[tick.key] = wait
    if tick.prompt is not None and known is None:
        out.append(Publish(tick.prompt))
    for index, payload in enumerate(state.early):
        if _matches(wait, payload):
            wait.event = payload
            del state.early[index]
            out.append(resume(work))
            return
    _list(state, work, wait)
    queue = state.steps[work.step]
    if work.id not in queue.answered:  # else it is queued for its slot already, by another wait's answer
        queue.active.discard(work.id)
        queue.waiting.add(work.id)
    if wait.deadline is not None:
        out.append(Wake(wait.deadline, work.id, tick.key))
    fill(graph, state, work.step, out)


def ended(graph: Graph, state: State, tick: WaitEnded, out: list[Command]) -> None:
    state.last_time = tick.time
    work = state.works.get(tick.work)
    wait = (work.waits or {}).get(tick.key) if work is not None else None
    if work is None or wait is None or not _is_open(wait):
        return
    wait.event, wait.over = tick.event, tick.event is None
    _unlist(state, work, wait)
    _go_on(graph, state, work, out)


def left(graph: Graph, state: State, tick: WaitLeft, out: list[Command]) -> None:
    """The step's own code goes on without the answer, so it holds a slot again, free or not."""
    work = state.works.get(tick.work)
    wait = (work.waits or {}).get(tick.key) if work is not None else None
    if work is None or wait is None:
        return
    if _is_open(wait):
        assert work.waits is not None
        del work.waits[tick.key]
        _unlist(state, work, wait)
    queue = state.steps[work.step]
    if work.id in queue.answered:  # by another wait's answer, which it was queued for
        out.append(resume(work))
    release(queue, work.id)
    queue.active.add(work.id)


def answer(graph: Graph, state: State, payload: Payload, out: list[Command]) -> Set[str]:
    """Give `payload` to every invocation with a wait that it answers; returns their steps.

    One that is queued for its slot, or not yet run again after a takeover, finds it when it comes to
    its wait.
    """
    if not state.awaited:
        return _NOBODY
    kind = qualified_name(type(payload.event))
    numbers = state.awaited.get(kind, _NO_WORKS)
    if len(numbers) > FEW:
        if state.index is None:
            state.index = _index_of(state)
        numbers = state.index.find(kind, payload.event)
    woken: set[str] = set()
    for number in sorted(numbers):
        work = state.works[number]
        # Two waits of one invocation don't both take the first event.
        for wait in (work.waits or {}).values():
            if _is_open(wait) and _matches(wait, payload):
                wait.event = payload
                _unlist(state, work, wait)
                _go_on(graph, state, work, out)
                woken.add(work.step)
                break
    return woken


def forget(state: State, work: Work) -> None:
    """`work` is done with, and what it still waited for, too."""
    for wait in (work.waits or {}).values():
        if _is_open(wait):
            wait.over = True
            _unlist(state, work, wait)


def _is_open(wait: Wait) -> bool:
    return wait.event is None and not wait.over


def _list(state: State, work: Work, wait: Wait) -> None:
    """Have `work` found by what it waits for; a sleep waits for no event."""
    if not wait.type:
        return
    state.awaited.setdefault(wait.type, set()).add(work.id)
    if state.index is not None:
        state.index.add(wait.type, wait.requirements, work.id)


def _unlist(state: State, work: Work, wait: Wait) -> None:
    """Nobody looks for `work` by this wait any more, unless by another one of the same type."""
    if not wait.type:
        return
    if state.index is not None:
        state.index.remove(wait.type, wait.requirements, work.id)
    if any(_is_open(w) and w.type == wait.type and w is not wait for w in (work.waits or {}).values()):
        return
    numbers = state.awaited[wait.type]
    numbers.discard(work.id)
    if not numbers:
        del state.awaited[wait.type]


def _index_of(state: State) -> WaitIndex:
    index = WaitIndex()
    for work in state.works.values():
        for wait in (work.waits or {}).values():
            if wait.type and _is_open(wait):
                index.add(wait.type, wait.requirements, work.id)
    return index


def _go_on(graph: Graph, state: State, work: Work, out: list[Command]) -> None:
    queue = state.steps[work.step]
    if work.id in queue.active:
        out.append(resume(work))
    elif work.id in queue.waiting:
        # A live waiter holds no worker slot; it has to take one again before it goes on.
        queue.waiting.discard(work.id)
        queue.answered.add(work.id)
        queue.queued.appendleft(work.id)
        fill(graph, state, work.step, out)


def _matches(wait: Wait, payload: Payload) -> bool:
    event = payload.event
    if qualified_name(type(event)) != wait.type:
        return False
    if wait.requirements is None:
        return True
    wanted: dict[str, Any] = json.loads(wait.requirements)
    return all(getattr(event, name, None) == value for name, value in wanted.items())
