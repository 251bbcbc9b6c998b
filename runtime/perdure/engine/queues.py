"""Work for steps: who is queued, who holds a worker slot, who waits without one."""

from __future__ import annotations

from collections import deque

from perdure.engine.graph import Graph
from perdure.engine.model import Command, Payload, Resume, Start, State, StepQueue, Work


def queue_of(state: State, step: str) -> StepQueue:
    queue = state.steps.get(step)
    if queue is None:
        queue = state.steps[step] = StepQueue(queued=deque(), active=set(), waiting=set())
    return queue


def enqueue(graph: Graph, state: State, work: Work, out: list[Command], *, head: bool = False) -> None:
    """Give `work` a worker slot, or a place in the queue until one is free."""
    queue = queue_of(state, work.step)
    if len(queue.active) < graph.steps[work.step].limit and not state.draining and not queue.queued:
        queue.active.add(work.id)
        out.append(Start(work))
    elif head:
        queue.queued.appendleft(work.id)
        fill(graph, state, work.step, out)
    else:
        queue.queued.append(work.id)


def fill(graph: Graph, state: State, step: str, out: list[Command]) -> None:
    """Give free worker slots of `step` to the head of its queue."""
    if state.draining:
        return
    queue = queue_of(state, step)
    limit = graph.steps[step].limit
    while queue.queued and len(queue.active) < limit:
        number = queue.queued.popleft()
        queue.active.add(number)
        work = state.works[number]
        if number in queue.answered:
            queue.answered.discard(number)
            out.append(resume(work))
        else:
            out.append(Start(work))


def resume(work: Work) -> Resume:
    waits = (work.waits or {}).items()
    return Resume(work, [key for key, wait in waits if wait.event is not None or wait.over])


def release(queue: StepQueue, number: int) -> None:
    """Take the work out of wherever it stands: a step may end with a wait of its still open."""
    queue.active.discard(number)
    queue.waiting.discard(number)
    if number in queue.answered:
        queue.answered.discard(number)
        queue.queued.remove(number)


def new_work(
    graph: Graph,
    state: State,
    step: str,
    event: Payload | None,
    out: list[Command],
    *,
    several: list[Payload] | None = None,
    stream: int = 0,
    recoveries: dict[str, int] | None = None,
) -> None:
    number = state.next_id
    work = Work(number, step, event, several, stream, recoveries=recoveries)
    state.next_id = number + 1
    state.works[number] = work
    if stream:
        state.streams[stream].open += 1
    enqueue(graph, state, work, out)
