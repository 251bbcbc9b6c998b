"""`Context`: what a step, or who started the run, sees of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextvars
import datetime
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from perdure.context.serializers import BaseSerializer
from perdure.context.state_store import DictState, InMemoryStateStore
from perdure.deprecation import deprecated
from perdure.errors import ContextSerdeError, ContextStateError, WorkflowRuntimeError
from perdure.events import Event, StopEvent
from perdure.naming import qualified_name

if TYPE_CHECKING:
    # None of the engine here: an author's module names Context, and only a run needs what runs it.
    from perdure.engine.invocation import Invocation
    from perdure.engine.model import State
    from perdure.retry_policy import RetryInfo
    from perdure.run import Run
    from perdure.workflow import Workflow

StateT = TypeVar("StateT", bound=BaseModel, default=DictState)
EventT = TypeVar("EventT", bound=Event)

VERSION = "1"

_current: contextvars.ContextVar[Context[Any]] = contextvars.ContextVar("perdure_step_context")


class Context(Generic[StateT]):
    """One run, seen from before it (`Context(workflow)`), from outside (`handler.ctx`), or from a step.

    What a face doesn't offer raises ContextStateError. Semantics: llama-index-workflows' Context; ours
    beyond it are `to_dict` in a step, `checkpoint`, `sleep`, `now`, `attempt`, `idempotency_key` and
    `store.append`.
    """

    __slots__ = ("_invocation", "_run", "_snapshot", "_store", "_workflow")

    def __init__(self, workflow: Workflow[Any]) -> None:
        self._workflow = workflow
        self._run: Run | None = None
        self._invocation: Invocation | None = None
        self._snapshot: State | None = None
        self._store: InMemoryStateStore[Any] | None = None

    # --- faces ----------------------------------------------------------------------------------------

    @classmethod
    def _of_run(cls, run: Run, invocation: Invocation | None = None) -> Context[StateT]:
        context = cls.__new__(cls)
        context._workflow = run.workflow
        context._run = run
        context._invocation = invocation
        context._snapshot = None
        context._store = None
        return context

    def _inside(self, what: str) -> tuple[Run, Invocation]:
        if self._run is None or self._invocation is None:
            raise ContextStateError(
                f"{what} works in a running step only: use the Context that the step is given"
            )
        return self._run, self._invocation

    def _outside(self, what: str) -> Run:
        if self._run is None:
            raise ContextStateError(f"{what} needs a run: call workflow.run(ctx=ctx) first")
        if self._invocation is not None:
            raise ContextStateError(f"{what} is for who started the run, not for a step: use handler.ctx")
        return self._run

    @staticmethod
    def get_step_context() -> Context[Any]:
        """The Context of the step that is running, from anywhere below it.

        Raises WorkflowRuntimeError outside of a step.
        """
        try:
            return _current.get()
        except LookupError:
            raise WorkflowRuntimeError("get_step_context() was called outside of a step") from None

    @property
    def store(self) -> InMemoryStateStore[StateT]:
        """The run's state: `await ctx.store.get("key")`, `set`, `append`, `edit_state`, …"""
        if self._run is not None:
            return cast("InMemoryStateStore[StateT]", self._run.store)
        if self._store is None:
            self._store = self._workflow._new_store()
        return cast("InMemoryStateStore[StateT]", self._store)

    @property
    def is_running(self) -> bool:
        """Whether the run, or the one that this context was restored from, has not ended."""
        if self._invocation is not None:
            deprecated("Context.is_running in a step", "True: a step runs in a running run")
        return self._goes_on

    @property
    def _goes_on(self) -> bool:
        if self._run is not None:
            return self._run.is_running
        return self._snapshot is not None and self._snapshot.begun and self._snapshot.ending is None

    # --- serialization -----------------------------------------------------------------------------

    def to_dict(
        self, serializer: BaseSerializer | None = None, *, include_state: bool = True
    ) -> dict[str, str]:
        """The whole run as a flat dict of strings with a fixed set of fields; works in a step, too.

        So `redis.hset("ctx", mapping=ctx.to_dict())` stores it and leaves nothing stale. Steps that
        are running are run again by who resumes it. Raises ValueError for a value that the serializer
        can't write.
        """
        serializer = serializer or self._workflow.serializer
        engine = ""
        if self._run is not None:
            engine = self._run.encode_state(serializer)
        elif self._snapshot is not None:
            engine = encode_engine(self._workflow, serializer, self._snapshot)
        return {
            "version": VERSION,
            "workflow": self._workflow.workflow_name,
            "is_running": "true" if self._goes_on else "false",
            "state": json.dumps(self.store.to_dict(serializer)) if include_state else "",
            "engine": engine,
        }

    @classmethod
    def from_dict(
        cls,
        workflow: Workflow[Any],
        data: Mapping[Any, Any],
        serializer: BaseSerializer | None = None,
    ) -> Context[StateT]:
        """The context that `to_dict` wrote; keys and values as str or bytes. `{}` is a fresh context.

        Raises ContextSerdeError when `data` isn't one.
        """
        if not isinstance(data, Mapping):
            raise ContextSerdeError(f"a context is the dict that to_dict() gave, not a {type(data).__name__}")
        context = cls(workflow)
        if not data:
            return context
        serializer = serializer or workflow.serializer
        fields = {_text(key): value for key, value in data.items()}
        if not isinstance(fields.get("version"), str | bytes):
            raise ContextSerdeError(
                "this isn't a context that Perdure wrote: it has no text field 'version'. Contexts of other "
                "frameworks can't be read; take their state over with ctx.store.set()."
            )
        fields = {key: _text(value) for key, value in fields.items()}
        if fields["version"] != VERSION:
            raise ContextSerdeError(
                f"the context has version {fields['version']!r}, this Perdure reads {VERSION!r}: "
                f"use the Perdure that wrote it, or a newer one"
            )
        try:
            if fields.get("state"):
                context._store = workflow._restore_store(json.loads(fields["state"]), serializer)
            if fields.get("engine"):
                context._snapshot = decode_engine(workflow, serializer, fields["engine"])
        except ContextSerdeError:
            raise
        except Exception as error:
            raise ContextSerdeError(f"the serialized context can't be read: {error}") from error
        return context

    # --- in a step -----------------------------------------------------------------------------------

    def send_event(self, message: Event, step: str | None = None) -> None:
        """Give an event to every step that accepts it, or to `step` alone. In call order, at once.

        A step that was cut off and is run again doesn't send again what it had sent. Raises
        WorkflowRuntimeError for a step that isn't there or doesn't accept the event.
        """
        if self._run is None:
            raise ContextStateError("send_event needs a run: call workflow.run(ctx=ctx) first")
        run, invocation = self._run, self._invocation
        run.check_target(message, step)
        if invocation is None:
            run.send_from_outside(message, step)
            return
        payload = run.loop.payload(message)
        ordinal = invocation.sends
        invocation.sends += 1
        mark = b""
        if run.loop.durable:
            mark = digest(payload.data, step)
            if _gave(invocation.work.sent, ordinal, mark):
                return
        run.loop.send(invocation, ordinal, mark, payload, step)

    def write_event_to_stream(self, ev: Event | None) -> None:
        """Show an event to who reads the run's stream. None is ignored."""
        run, invocation = self._inside("write_event_to_stream")
        if ev is None:
            return
        payload = run.loop.payload(ev)
        ordinal = invocation.publishes
        invocation.publishes += 1
        mark = b""
        if run.loop.durable:
            mark = digest(payload.data, None)
            if _gave(invocation.work.published, ordinal, mark):
                return
        run.loop.publish(invocation, ordinal, mark, payload)

    def collect_events(
        self, ev: Event, expected: list[type[Event]], buffer_id: str | None = None
    ) -> list[Event] | None:
        """Keep `ev` until one event for each of `expected` is there: then all of them, in that order."""
        run, invocation = self._inside("collect_events")
        return run.loop.collect(invocation, ev, expected, buffer_id or "default")

    async def wait_for_event(
        self,
        event_type: type[EventT],
        waiter_event: Event | None = None,
        waiter_id: str | None = None,
        requirements: dict[str, Any] | None = None,
        timeout: float | None = 2000,
    ) -> EventT:
        """Wait for an event of exactly this type whose fields equal `requirements`.

        The step stays where it is and gives its worker slot away meanwhile; it is run again from its
        start only after a restart. `waiter_event` is published once. timeout: seconds, None for ever.
        Raises TimeoutError.
        """
        run, invocation = self._inside("wait_for_event")
        wanted = _requirements(requirements)
        base = f"{qualified_name(event_type)}|{(wanted or b'').decode()}"
        key = waiter_id or _waiter_key(invocation, base)
        event = await self._wait(
            run, invocation, key, qualified_name(event_type), wanted, timeout, waiter_event
        )
        if event is None:
            raise TimeoutError(f"no {event_type.__name__} came in {timeout} s")
        return cast("EventT", event)

    async def sleep(self, seconds: float) -> None:
        """Wait without a worker slot. The time goes on while no process runs the workflow."""
        run, invocation = self._inside("sleep")
        key = _waiter_key(invocation, "sleep")
        await self._wait(run, invocation, key, "", None, seconds, None)

    async def _wait(
        self,
        run: Run,
        invocation: Invocation,
        key: str,
        type_: str,
        requirements: bytes | None,
        timeout: float | None,
        prompt: Event | None,
    ) -> Event | None:
        loop, work = run.loop, invocation.work
        wait = (work.waits or {}).get(key)
        if wait is None or (wait.event is None and not wait.over):
            deadline = None if timeout is None else loop.now() + timeout
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if invocation.answers is None:
                invocation.answers = {}
            invocation.answers[key] = answer
            payload = loop.payload(prompt) if prompt is not None else None
            loop.begin_wait(invocation, key, type_, requirements, deadline, payload)
            try:
                await loop.suspend(invocation, answer)
            except asyncio.CancelledError:
                # A timeout of the step's own, say. It runs on, and must not count as waiting.
                if not invocation.closed:
                    loop.leave_wait(invocation, key)
                raise
            finally:
                del invocation.answers[key]
                loop.timers.disarm((work.id, key))
            wait = (work.waits or {})[key]
        else:
            # It came before this execution of the step did, but maybe only just: what it does with the
            # answer must not be seen while a crash could still take the answer away.
            await loop.barrier(invocation, strict=True)
        return wait.event.event if wait.event is not None else None

    async def checkpoint(self) -> None:
        """Return when all that this run did so far is durable, `Relaxed` or not."""
        run, invocation = self._inside("checkpoint")
        await run.loop.barrier(invocation, strict=True)

    def now(self) -> float:
        """The run's time, in Unix seconds: the store's where there is one, so that hosts agree."""
        run, _ = self._inside("now")
        return run.loop.now()

    @property
    def attempt(self) -> int:
        """How often this invocation has failed and was tried again; 0 at first."""
        _, invocation = self._inside("attempt")
        return invocation.work.attempts

    def retry_info(self) -> RetryInfo:
        """Where this invocation stands in its retries, over restarts, too."""
        from perdure.retry_policy import RetryInfo

        run, invocation = self._inside("retry_info")
        work = invocation.work
        if not work.attempts:
            return RetryInfo(0, 0.0, None, None)
        return RetryInfo(
            retry_number=work.attempts,
            elapsed_seconds=max(0.0, run.loop.now() - work.first_at),
            last_exception=run.loop.completions.last_error(work),
            last_failed_at=datetime.datetime.fromtimestamp(work.failed_at, datetime.UTC),
        )

    @property
    def idempotency_key(self) -> str:
        """The same in every replay of this invocation, for calls to the outside."""
        run, invocation = self._inside("idempotency_key")
        return f"{run.run_id}:{invocation.work.id}"

    # --- outside -------------------------------------------------------------------------------------

    async def running_steps(self) -> list[str]:
        """Names of the steps that have an execution under way."""
        return sorted(set(self._outside("running_steps").loop.active_steps()))

    def stream_events(self, expose_internal: bool = False) -> AsyncIterator[Event]:
        """As `WorkflowHandler.stream_events`."""
        return self._outside("stream_events").stream_events(expose_internal=expose_internal)

    def get_result(self) -> Any:
        """Deprecated, as in the origin: await the handler instead.

        Raises what the run failed with, and WorkflowRuntimeError while it goes on.
        """
        run = self._outside("get_result")
        deprecated("Context.get_result()", "await the handler that run() returned")
        if not run.result.done():
            raise WorkflowRuntimeError(f"run {run.run_id} has not ended yet: await the handler")
        stop = run.result.result()
        return stop.result if type(stop) is StopEvent else stop

    @property
    def streaming_queue(self) -> asyncio.Queue[Event]:
        """Deprecated, as in the origin: the run's stream as a queue, to the event that ended it."""
        run = self._outside("streaming_queue")
        deprecated("Context.streaming_queue", "async for event in handler.stream_events()")
        queue: asyncio.Queue[Event] = asyncio.Queue()

        async def pump() -> None:
            async for event in run.stream_events():
                queue.put_nowait(event)

        pumping = asyncio.get_running_loop().create_task(pump())
        _PUMPS.add(pumping)
        pumping.add_done_callback(_PUMPS.discard)
        return queue


_PUMPS: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive


def encode_engine(workflow: Workflow[Any], serializer: BaseSerializer, state: State) -> str:
    """A run's engine state as text."""
    return base64.b64encode(workflow._codec(serializer).encode_state(state)).decode()


def decode_engine(workflow: Workflow[Any], serializer: BaseSerializer, text: str) -> State:
    try:
        return workflow._codec(serializer).decode_state(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ContextSerdeError(f"the context's field 'engine' is damaged: {error}") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def digest(data: bytes, step: str | None) -> bytes:
    """Of an event that was sent, by which a replay knows that it was."""
    return hashlib.blake2b(data, digest_size=8, key=(step or "").encode()[:64]).digest()


def _gave(known: list[bytes] | None, ordinal: int, mark: bytes) -> bool:
    """Whether an execution of the invocation before this one gave the same away in the same place."""
    return known is not None and ordinal < len(known) and known[ordinal] == mark


def _requirements(requirements: dict[str, Any] | None) -> bytes | None:
    if not requirements:
        return None
    try:
        return json.dumps(requirements, sort_keys=True).encode()
    except TypeError as error:
        raise WorkflowRuntimeError(
            f"wait_for_event: requirements must be plain values, so that they survive a restart: {error}"
        ) from error


def _waiter_key(invocation: Invocation, base: str) -> str:
    """Two equal waits of one invocation are told apart by their order."""
    if invocation.wait_keys is None:
        invocation.wait_keys = {}
    number = invocation.wait_keys.get(base, 0)
    invocation.wait_keys[base] = number + 1
    return f"{base}|{number}"


def set_current(context: Context[Any]) -> None:
    _current.set(context)


def current_step() -> tuple[Run, Invocation] | None:
    """The run and the invocation of the step that is running here, or None outside of a step."""
    context = _current.get(None)
    if context is None or context._run is None or context._invocation is None:
        return None
    return context._run, context._invocation


def current_invocation(run: Run) -> Invocation | None:
    """The invocation of `run` whose step is running here, or None outside of its steps."""
    step = current_step()
    return step[1] if step is not None and step[0] is run else None
