"""One run of a workflow in this process: joins the engine to the author's class, state and stream."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from perdure import verbose
from perdure.context.context import (
    Context,
    current_invocation,
    current_step,
    digest,
    encode_engine,
    set_current,
)
from perdure.context.serializers import BaseSerializer
from perdure.context.state_store import Change, InMemoryStateStore
from perdure.decorators import StepConfig
from perdure.engine.children import Within
from perdure.engine.gate import Gate
from perdure.engine.invocation import Invocation
from perdure.engine.journal import Journal
from perdure.engine.loop import Loop
from perdure.engine.model import Begin, Ending, External, Refused, State, Work
from perdure.engine.values import Encoder, difference
from perdure.errors import (
    CheckpointTooLargeError,
    UnfitEventError,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
)
from perdure.events import (
    Event,
    StartEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    UnhandledEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
    load_exception,
)
from perdure.inbox import event_of
from perdure.naming import qualified_name
from perdure.store.base import Message
from perdure.stream import EventStream

if TYPE_CHECKING:
    from perdure.workflow import Workflow

log = logging.getLogger("perdure.run")


class Run:
    """The engine's host for one run: calls steps with their arguments, keeps state, stream and result."""

    __slots__ = (
        "__weakref__", "_encoder", "_given", "_stream", "_unsent", "admitted", "ending", "error", "loop", "result", "run_id",
        "serializer", "stop_event", "store", "workflow",
    )  # fmt: skip

    def __init__(
        self,
        workflow: Workflow[Any],
        *,
        run_id: str,
        state: State,
        store: InMemoryStateStore[Any],
        serializer: BaseSerializer,
        journal: Journal | None = None,
        gate: Gate | None = None,
        now: Callable[[], float] = time,
        relaxed: bool = False,
        timeout: float | None = None,
        within: Within | None = None,
    ) -> None:
        self.workflow = workflow
        self.run_id = run_id
        self.admitted = False  # whether it holds a slot of `num_concurrent_runs`
        self.store = store
        self.ending: Ending | None = None
        self.stop_event: StopEvent | None = None  # the stream's last event
        self.error: BaseException | None = None  # what keeps the run from going on in this process
        self.serializer = serializer
        self._given = 0  # events that its parent's step sent it, in a child workflow
        # What was sent to a child workflow before it began, or was taken up again.
        self._unsent: list[tuple[Event, str | None]] | None = None if within is None else []
        self._stream = EventStream()
        self.result: asyncio.Future[StopEvent] = asyncio.get_running_loop().create_future()
        self.loop = Loop(
            workflow._graph,
            state,
            workflow._codec(serializer),
            self,
            journal=journal,
            gate=gate,
            now=now,
            relaxed=relaxed,
            timeout=timeout,
            within=within,
        )
        self.loop.watched = workflow._verbose
        store.write = self._write if journal is not None else None
        self._encoder = Encoder(self._encode_value)

    # --- start and end --------------------------------------------------------------------------------

    def begin(self, start: Event) -> None:
        """Send the StartEvent."""
        self.loop.submit(Begin(self.loop.now(), self.loop.payload(start), self.loop.graph.shape))

    @property
    def is_running(self) -> bool:
        """Whether the run has not ended; one that was cancelled can be taken up again and counts."""
        state = self.loop.state
        return state.begun and state.ending is None

    def encode_state(self, serializer: BaseSerializer) -> str:
        """The engine's state as text, without the values of `store`."""
        state = self.loop.state
        if self.is_running and not self.loop.stopped:
            # What it has used of its timeout is up to now, not up to the last thing that happened.
            state = msgspec.structs.replace(state, last_time=self.loop.now())
        return encode_engine(self.workflow, serializer, state)

    def cancel(self) -> None:
        """End the run by its user's wish."""
        self.loop.halt(
            "Cancelled",
            "Workflow was cancelled",
            event=WorkflowCancelledEvent(),
            resumable=not self.loop.durable,
        )

    # --- the engine's host ------------------------------------------------------------------------------

    def call(self, invocation: Invocation) -> Awaitable[Any]:
        """Run the step of `invocation` with its events, resources and context."""
        if self.loop.watched:
            return self._call_watched(invocation)
        config = self.workflow._graph.configs[invocation.work.step]
        if config.is_async and not config.resources:
            # The step's own coroutine, with none of ours around it.
            awaitable: Awaitable[Any] = self._function(config)(**self._arguments(config, invocation))
            return awaitable
        return self._call_prepared(config, invocation)

    async def _call_watched(self, invocation: Invocation) -> Any:
        output: str | None = None
        self._step_state(invocation.work, StepState.RUNNING)
        try:
            config = self.workflow._graph.configs[invocation.work.step]
            returned = await self._call_prepared(config, invocation)
            output = None if returned is None else str(type(returned))
        finally:
            self._step_state(invocation.work, StepState.NOT_RUNNING, output)
        return returned

    async def _call_prepared(self, config: StepConfig, invocation: Invocation) -> Any:
        """As `call`, for a step that needs resources or isn't async."""
        arguments = self._arguments(config, invocation)
        if config.resources:
            arguments.update(await self.workflow._resources.resolve(config.resources))
        function = self._function(config)
        if config.is_async:
            return await function(**arguments)
        return await self.loop.in_thread(invocation, functools.partial(function, **arguments))

    def _function(self, config: StepConfig) -> Callable[..., Any]:
        return self.workflow._step(config.name)

    def _arguments(self, config: StepConfig, invocation: Invocation) -> dict[str, Any]:
        """The step's events and context, which becomes the current one."""
        context: Context[Any] = Context._of_run(self, invocation)
        set_current(context)
        arguments: dict[str, Any] = {}
        work, slots = invocation.work, config.slots
        several = work.several or []
        if work.event is not None:
            arguments[slots[0].name] = work.event.event
        elif slots[0].is_list:  # then it is the only one
            arguments[slots[0].name] = [payload.event for payload in several]
        else:
            for slot, payload in zip(slots, several, strict=True):
                arguments[slot.name] = payload.event
        if config.context_parameter is not None:
            arguments[config.context_parameter] = context
        return arguments

    def show(self, event: Event) -> None:
        self._stream.show(event)

    def queued(self, work: Work) -> None:
        self._step_state(work, StepState.PREPARING)

    def resting(self) -> None:
        self._tell(WorkflowIdleEvent())

    def _step_state(self, work: Work, state: StepState, output: str | None = None) -> None:
        self._tell(
            StepStateChanged(
                name=work.step,
                step_state=state,
                worker_id=str(work.id),
                input_event_name=str(type(work.events[0].event)) if work.events else "[]",
                output_event_name=output,
            )
        )

    def unhandled(self, event: Event, reason: str) -> None:
        log.warning(
            "%s: event %s goes nowhere: %s", self.workflow.workflow_name, type(event).__name__, reason
        )
        kind = type(event)
        idle = not self.loop.state.works
        self._tell(UnhandledEvent(event_type=kind.__name__, qualified_name=qualified_name(kind), idle=idle))

    def idle(self) -> None:
        graph = self.loop.graph
        log.log(
            logging.INFO if graph.human else logging.WARNING,
            "%s: run %s has nothing in flight: no step ran into a StopEvent, and only an event from outside or "
            "its timeout brings it on; events that would wake it: %s",
            self.workflow.workflow_name, self.run_id, ", ".join(graph.taken) or "none",
        )  # fmt: skip

    def _tell(self, event: Event) -> None:
        """An event of the engine's own, for `verbose` and a stream that was opened with `expose_internal`."""
        if self.workflow._verbose:
            verbose.tell(event)
        if self._stream.exposed:
            self.show(event)

    def outcome(self, ending: Ending) -> bytes:
        """The JSON that the store keeps: reason, message, result or failure, and the StopEvent itself."""
        document: dict[str, Any] = {"reason": ending.reason, "message": ending.message}
        if ending.stop is not None:
            document["stopEvent"] = ending.stop.data.decode()
            stop = ending.stop.event
            if ending.reason == "Completed" and isinstance(stop, StopEvent):
                value = stop.result if type(stop) is StopEvent else stop
                document["result"] = _plain(value, self.serializer)
        if ending.failure is not None:
            document["failure"] = {
                "step": ending.step,
                "exceptionType": ending.failure.type,
                "message": ending.failure.message,
                "traceback": ending.failure.traceback,
            }
        return json.dumps(document).encode()

    def ended(self, ending: Ending | None, error: BaseException | None) -> None:
        self.ending, self.error = ending, error
        stop, raised = self._verdict(ending, error)
        self.stop_event = stop
        self.show(stop)
        self._stream.close()
        if self.result.done():
            return
        if raised is None:
            self.result.set_result(stop)
        else:
            self.result.set_exception(raised)
            self.result.exception()  # who doesn't await the handler has the stream and the log

    def _verdict(
        self, ending: Ending | None, error: BaseException | None
    ) -> tuple[StopEvent, BaseException | None]:
        """The stream's last event, and what awaiting the run raises."""
        if ending is not None and ending.reason == "Completed":
            assert ending.stop is not None
            stop = ending.stop.event
            assert isinstance(stop, StopEvent)
            return stop, None
        if ending is not None and ending.reason == "TimedOut":
            event = WorkflowTimedOutEvent(
                timeout=self.loop.timeout or 0.0, active_steps=self.loop.timed_out_steps
            )
            return event, WorkflowTimeoutError(ending.message)
        if ending is not None and ending.reason == "StepFailed":
            cause = self.loop.completions.error
            if cause is None and ending.failure is not None:  # it ended in a process before this one
                cause = load_exception(
                    {"exception_type": ending.failure.type, "exception_message": ending.failure.message}
                )
            if not isinstance(cause, Exception):
                # SystemExit, KeyboardInterrupt or CancelledError would end whoever awaits the run.
                exits = WorkflowRuntimeError(f"step {ending.step} raised {cause!r}")
                exits.__cause__, cause = cause, exits
            return self._failed_event(ending.step, cause), cause
        if ending is not None and ending.reason == "CheckpointTooLarge":
            large = CheckpointTooLargeError(ending.message)
            return self._failed_event("", large), large
        if isinstance(error, Exception):
            return self._failed_event("", error), error
        message = ending.message if ending is not None else "the run was left in this process"
        return WorkflowCancelledEvent(), WorkflowCancelledByUser(message)

    def _failed_event(self, step: str, error: Exception) -> WorkflowFailedEvent:
        return WorkflowFailedEvent(
            step_name=step,
            exception=error,
            attempts=self.loop.completions.attempts if step else None,
            elapsed_seconds=self.loop.completions.elapsed if step else None,
        )

    # --- state -----------------------------------------------------------------------------------------

    async def _write(self, changes: Sequence[Change]) -> None:
        """Log what changed of the state; returns when that is durable."""
        invocation = current_invocation(self)
        if invocation is not None and invocation.closed:
            raise WorkflowRuntimeError(
                f"step {invocation.work.step} wrote state after it had ended; the write is dropped"
            )
        work = invocation.work.id if invocation is not None else 0
        stored = self.loop.state.store
        # All are encoded before the first is logged: what one of them refuses, none of them did.
        ticks = [
            difference(stored.get(c.key), c.op, _checked_key(c.key), c.value, self._encoder, work)
            for c in changes
        ]
        for tick in ticks:
            if tick is not None:
                self.loop.submit(tick)
        await self.loop.barrier(invocation)

    def _encode_value(self, value: Any) -> bytes:
        return self.serializer.serialize(value).encode()

    # --- from outside ------------------------------------------------------------------------------------

    def check_target(self, event: Event, step: str | None) -> None:
        """Raises WorkflowRuntimeError when `step` can't take `event`."""
        if step is None:
            return
        config = self.workflow._graph.configs.get(step)
        if config is None:
            raise WorkflowRuntimeError(f"Step {step} does not exist")
        targets = [t for t in self.workflow._graph.route(type(event)) if t.step == step]
        if not targets:
            raise WorkflowRuntimeError(f"Step {step} does not accept event of type {type(event)}")
        if any(target.is_list for target in targets):
            raise WorkflowRuntimeError(
                f"{type(event).__name__} was sent to step {step}, which takes a list: it gets only what descends "
                f"from a list that a step returned. Return the event, or use ctx.collect_events"
            )

    def send_from_outside(self, event: Event, step: str | None) -> None:
        if self._unsent is not None:
            self._unsent.append((event, step))
            return
        payload = self.loop.payload(event)
        ordinal, data = self._given, b""
        if self.loop.within is not None and self.loop.durable:
            # A parent's step that was cut off and is run again doesn't send again what it had sent.
            self._given += 1
            data, given = digest(payload.data, step), self.loop.state.given
            if ordinal < len(given) and given[ordinal] == data:
                return
        self.loop.submit(External(self.loop.now(), payload, step, ordinal=ordinal, digest=data))

    def take_sends(self) -> None:
        """It has begun: what was sent to it before comes now."""
        held, self._unsent = self._unsent or (), None
        for event, step in held:
            self.send_from_outside(event, step)

    async def until(self, awaited: Awaitable[Any]) -> Any:
        """Await something of this run. A step that awaits its child counts as waiting in the engine."""
        within, here = self.loop.within, current_step()
        if within is None or here is None or here[1] is not within.invocation:
            return await awaited
        return await within.loop.await_child(within, awaited)

    def receive(self, position: str, sent: Message, limit: int) -> None:
        """Take an event of the inbox, or refuse it for good: it must not stand in the way of the next.

        limit: of its data, in bytes.
        """
        now = self.loop.now()
        try:
            payload = self.loop.payload(event_of(self.workflow, self.loop.state.awaited, sent, limit))
        except (UnfitEventError, ValueError) as error:
            reason = str(error) if isinstance(error, UnfitEventError) else "it can't be made durable"
            log.error("refused the event %s of type %s from outside: %s", sent.id, sent.kind, reason)
            self.loop.submit(Refused(now, position, sent.id, sent.kind, reason))
        else:
            self.loop.submit(External(now, payload, inbox=position))

    def stream_events(self, *, expose_internal: bool = False) -> AsyncIterator[Event]:
        """The run's events in publish order, to the last; each is given once."""
        self.loop.watched = self.loop.watched or expose_internal
        events = self._stream.read(expose_internal=expose_internal)
        return events if self.loop.within is None else self._read_within(events)

    async def _read_within(self, events: AsyncGenerator[Event]) -> AsyncIterator[Event]:
        async with aclosing(events):
            while (event := await self.until(anext(events, None))) is not None:
                yield event


def start_event(workflow: Workflow[Any], fields: dict[str, Any]) -> StartEvent:
    """The workflow's StartEvent from `fields`. Raises WorkflowRuntimeError with what is wrong in which."""
    kind = workflow.start_event_class
    try:
        return kind(**fields)
    except ValidationError as error:
        # Without the values: this goes to logs and statuses.
        told = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise WorkflowRuntimeError(
            f"Failed creating a start event of type '{kind.__name__}' from the input: {told}"
        ) from error
    except Exception as error:
        raise WorkflowRuntimeError(
            f"Failed creating a start event of type '{kind.__name__}' from the input: {error}"
        ) from error


def _checked_key(key: str) -> str:
    """Raises ValueError for a key that no record can hold."""
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the state's key {key!r} is no valid text: {error}") from error
    return key


def _plain(value: Any, serializer: BaseSerializer) -> Any:
    """`value` as plain JSON for status and screen; its repr where it isn't."""
    try:
        if isinstance(value, Event):
            return value.model_dump(mode="json")
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        try:
            return json.loads(serializer.serialize(value))
        except (TypeError, ValueError):
            return repr(value)
