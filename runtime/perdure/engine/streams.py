"""Streams and joins: the descendants of a returned list, and events that a step takes together."""

from __future__ import annotations

from perdure.engine.graph import Graph, Target
from perdure.engine.model import Command, Payload, State, Stream, Work
from perdure.engine.queues import new_work


def gather(
    graph: Graph, state: State, target: Target, payload: Payload, out: list[Command], number: int
) -> bool:
    """Keep the event for the list parameter of a step; False when it is of no stream."""
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
        _call_with(graph, state, target.step, items, stream, out)
    return True


def join(
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
    slots[target.slot].append((payload, recoveries))
    if all(slots):
        taken = [slot.pop(0) for slot in slots]
        if not any(slots):
            del state.joins[key]
        events = [event for event, _ in taken]
        merged = _merged([used for _, used in taken])
        new_work(graph, state, target.step, None, out, several=events, stream=stream, recoveries=merged)


def _merged(lineages: list[dict[str, int] | None]) -> dict[str, int] | None:
    """What descends from several events has used what the one that used most has."""
    merged: dict[str, int] | None = None
    for used in lineages:
        if used:
            merged = dict(used) if merged is None else {**merged}
            merged.update({name: max(count, merged.get(name, 0)) for name, count in used.items()})
    return merged


def _call_with(
    graph: Graph, state: State, step: str, items: list[Payload], stream: Stream, out: list[Command]
) -> None:
    # Its lineage is the list's producer's: else a recovery that leads here again had no end.
    new_work(graph, state, step, None, out, several=items, stream=stream.parent, recoveries=stream.recoveries)


def open_stream(state: State, work: Work) -> int:
    number = state.next_id
    state.next_id += 1
    # It is open once for its producer, until all of the list is out, so that it can't close between.
    state.streams[number] = Stream(
        producer=work.step,
        parent=work.stream,
        open=1,
        items={},
        released=set(),
        recoveries=work.recoveries,
    )
    if work.stream:
        state.streams[work.stream].open += 1
    return number


def leave_stream(graph: Graph, state: State, number: int, out: list[Command]) -> None:
    """One descendant less; the last closes the stream, which calls the steps that take its list."""
    stream = state.streams[number]
    stream.open -= 1
    if stream.open:
        return
    del state.streams[number]
    steps = dict.fromkeys(graph.collectors.get(stream.producer, ()))
    steps.update(dict.fromkeys(stream.items))
    for name, info in graph.steps.items():
        if info.slots > 1:
            state.joins.pop(f"{name}/{number}", None)
    for step in steps:
        if step not in stream.released:
            _call_with(graph, state, step, stream.items.get(step, []), stream, out)
    if stream.parent:
        leave_stream(graph, state, stream.parent, out)
