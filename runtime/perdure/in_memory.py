"""A run in memory inside a program of one's own: `workflow.run()` without a store."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

from perdure.concurrency import RunSlots
from perdure.context.context import Context, current_step
from perdure.engine.model import State
from perdure.errors import ContextStateError
from perdure.events import StartEvent
from perdure.handler import WorkflowHandler
from perdure.run import Run, start_event

if TYPE_CHECKING:
    from perdure.workflow import Workflow

log = logging.getLogger("perdure.workflow")


def run_in_memory(
    workflow: Workflow[Any],
    ctx: Context[Any] | None,
    first: StartEvent | None,
    run_id: str | None,
    fields: dict[str, Any],
) -> WorkflowHandler[Any]:
    """Start a run in the running event loop: anew, or where an unfinished run's `ctx` stands.

    Inside a step it is a child of that, and as durable: see `perdure.children`.
    """
    if ctx is not None and ctx._run is not None and not ctx._run.loop.stopped:
        raise ContextStateError("Cannot start a new run while context is already running its run")
    context: Context[Any] = ctx if ctx is not None else Context(workflow)
    event = None if context._goes_on else _first_event(workflow, first, fields)
    step = current_step()
    # A step in a thread, of a run in memory, may have an event loop of its own, and runs in it.
    if step is not None and (step[0].loop.durable or step[0].loop.is_here):
        from perdure.children import run_child

        return run_child(workflow, *step, context, event, run_id)
    active = workflow._active.get(run_id) if run_id is not None else None
    if active is not None and not active.loop.stopped and not active.result.get_loop().is_closed():
        raise RuntimeError(f"run {run_id} is active: await it first, or give another run_id")
    state_store = context.store
    run = Run(
        workflow,
        run_id=run_id or secrets.token_urlsafe(8),
        state=state_of(workflow, context),
        store=state_store,
        serializer=workflow.serializer,
        timeout=workflow.timeout,
    )
    if run_id is not None:
        workflow._active[run_id] = run
        run.result.add_done_callback(lambda _: workflow._active.pop(run.run_id, None))
    context._run, context._snapshot, context._store = run, None, None
    launch_in_turn(workflow, run, event)
    return WorkflowHandler(run, context)


def launch_in_turn(workflow: Workflow[Any], run: Run, event: StartEvent | None) -> None:
    """Launch `run`, at once or when one of `num_concurrent_runs` slots is free."""
    slots = workflow._slots
    if slots is None:
        _launch(run, event)
    else:
        run.result.add_done_callback(lambda _: slots.leave() if run.admitted else None)
        _admit(slots, run, event)


def _admit(slots: RunSlots, run: Run, event: StartEvent | None) -> None:
    def begin() -> None:
        if run.result.done():  # it was cancelled before its turn
            slots.leave()
            return
        run.admitted = True
        _launch(run, event)

    slots.enter(begin)


def _launch(run: Run, event: StartEvent | None) -> None:
    within = run.loop.within
    if within is not None and within.loop.state.draining:
        return  # the successor of its parent begins it
    if event is not None:
        run.begin(event)
    else:
        run.loop.take_over(run.loop.state.epoch + 1)
    run.take_sends()


def state_of(workflow: Workflow[Any], context: Context[Any]) -> State:
    """The engine's state that a run with `context` begins with."""
    if not context._goes_on:
        return State()
    if context._run is not None:
        codec = workflow._codec(workflow.serializer)
        return codec.decode_state(codec.encode_state(context._run.loop.state))
    assert context._snapshot is not None
    return context._snapshot


def _first_event(workflow: Workflow[Any], first: StartEvent | None, fields: dict[str, Any]) -> StartEvent:
    if first is None:
        return start_event(workflow, fields)
    if not isinstance(first, StartEvent):
        raise ValueError(f"start_event must be a StartEvent, not a {type(first).__name__}")
    if fields:
        log.warning("start_event is given: the other arguments %s are ignored", sorted(fields))
    return first
