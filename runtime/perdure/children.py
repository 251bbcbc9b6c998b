"""`workflow.run()` inside a step: a child workflow, which lives no longer than the step that runs it."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from perdure.context.context import Context
from perdure.context.serializers import PickleSerializer
from perdure.engine.children import ChildJournal, Children, Within
from perdure.engine.invocation import Invocation
from perdure.engine.model import ChildCommit, Codec, State
from perdure.engine.reduce import FINAL, reduce
from perdure.engine.values import Encoder, difference
from perdure.errors import CheckpointError, WorkflowRuntimeError
from perdure.events import StartEvent
from perdure.fold import fold_records, live_store, read_snapshot, serializer_of
from perdure.handler import WorkflowHandler
from perdure.in_memory import launch_in_turn, state_of
from perdure.naming import check_run_id
from perdure.run import Run

if TYPE_CHECKING:
    from perdure.workflow import Workflow

log = logging.getLogger("perdure.run")


def run_child(
    workflow: Workflow[Any],
    parent: Run,
    invocation: Invocation,
    context: Context[Any],
    start: StartEvent | None,
    name: str | None,
) -> WorkflowHandler[Any]:
    """Begin `workflow` in a step of `parent`, or go on with it where that step's execution had left it.

    start: None to go on with the unfinished run of `context`. Raises WorkflowRuntimeError in a step that
    has ended, RuntimeError for a name that this execution has given away.
    """
    _check(parent, invocation)
    if invocation.children is None:
        invocation.children = Children()
    durable = parent.loop.durable
    serializer = workflow.serializer
    if durable:
        pickles = isinstance(parent.serializer, PickleSerializer)
        serializer = serializer_of(workflow, "Pickle" if pickles else "JSON")
    codec = workflow._codec(serializer)
    within = Within(
        parent.loop,
        invocation,
        invocation.children,
        _new_id(workflow, codec, invocation, start, name, durable),
    )
    known = (invocation.work.children or {}).get(within.id)
    state, store = state_of(workflow, context), context.store
    if durable and known is None:
        _log_what_it_begins_with(within, codec, workflow, state, store.export(), serializer)
    elif known is not None:
        try:
            state = _state_of(workflow, codec, known.snapshot, known.records)
        except CheckpointError as error:
            # No failure of the step: code that fits the log can still go on from it.
            parent.loop.root.stop(None, error)
            raise
        store = live_store(workflow, state, serializer)
    run = Run(
        workflow,
        run_id=f"{parent.run_id}:{invocation.work.id}.{invocation.work.attempts}/{within.id}",
        state=state,
        store=store,
        serializer=serializer,
        journal=ChildJournal(within, known) if durable else None,
        gate=parent.loop.gate,
        now=parent.loop.now,
        timeout=workflow.durable_timeout if durable else workflow.timeout,
        within=within,
    )
    context._run, context._snapshot, context._store = run, None, None
    for payload in state.shown or ():
        run.show(payload.event)
    reopened = known is not None and known.reopened
    if state.ending is not None and not (reopened and state.ending.reason not in FINAL):
        run.loop.stop(state.ending, None)
    else:
        launch_in_turn(workflow, run, None if state.begun else start)
    return WorkflowHandler(run, context)


def _check(parent: Run, invocation: Invocation) -> None:
    step = invocation.work.step
    if invocation.closed:
        raise WorkflowRuntimeError(
            f"step {step} has ended, so what it left running can't begin a child workflow: begin it before, or "
            f"start that task with asyncio.create_task(..., context=contextvars.Context())"
        )
    if not parent.loop.is_here:
        raise WorkflowRuntimeError(
            f"step {step} begins a child workflow in an event loop of its own: make the step async"
        )


def _new_id(
    workflow: Workflow[Any],
    codec: Codec,
    invocation: Invocation,
    start: StartEvent | None,
    name: str | None,
    durable: bool,
) -> str:
    """What finds the child again when the step is run again: its name, else its class, input and order."""
    assert invocation.children is not None
    taken = invocation.children.ids
    if name is not None:
        check_run_id(name)
        if name in taken:
            raise RuntimeError(
                f"step {invocation.work.step} has begun a child workflow with the run_id {name!r} already: "
                f"give each its own"
            )
        taken.add(name)
        return name
    base = type(workflow).__name__
    if durable and start is not None:
        # By their order alone, children that a step begins from tasks of its own could be mixed up.
        base += "-" + hashlib.blake2b(codec.payload(start).data, digest_size=6).hexdigest()
    number = 0
    while f"{base}-{number}" in taken:
        number += 1
    found = f"{base}-{number}"
    taken.add(found)
    logged = invocation.work.children or {}
    if found not in logged and any(known not in taken for known in logged):
        log.warning(
            "step %s, run again, begins %s with an input that is none of those before: what another child of it "
            "had done is not gone on with. A run_id= finds a child again whatever its input",
            invocation.work.step, workflow.workflow_name,
        )  # fmt: skip
    return found


def _log_what_it_begins_with(
    within: Within,
    codec: Codec,
    workflow: Workflow[Any],
    state: State,
    values: dict[str, Any],
    serializer: Any,
) -> None:
    """The state of the context that was given, if there is one, as the first of the child's log."""
    state.shown, state.graph = [], workflow._graph.shape
    for key, value in values.items():
        tick = difference(
            None, "set", key, value, Encoder(lambda item: serializer.serialize(item).encode()), 0
        )
        if tick is not None:
            reduce(workflow._graph, state, tick)
    if values or state.begun:
        loop, work = within.loop, within.invocation.work.id
        first = ChildCommit(loop.now(), work, within.id, b"", snapshot=codec.encode_state(state))
        loop.commit_child(within.invocation, first, progress=False)


def _state_of(workflow: Workflow[Any], codec: Codec, snapshot: bytes | None, records: list[bytes]) -> State:
    state = State(shown=[]) if snapshot is None else read_snapshot(workflow, codec, snapshot)
    fold_records(workflow, codec, state, enumerate(records))
    return state
