"""A durable run inside a program of one's own: `workflow.run(run_id=…, store=…)`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from perdure.checkpoint import Checkpoint
from perdure.context.context import Context
from perdure.deprecation import deprecated
from perdure.durable import DurableRun
from perdure.engine.gate import Gate
from perdure.engine.reduce import FINAL
from perdure.errors import (
    ContextStateError,
    LeaseLostError,
    RunEndedError,
    RunHeldError,
    StateLostError,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
)
from perdure.events import Event, StopEvent
from perdure.handler import WorkflowHandler
from perdure.naming import check_run_id
from perdure.run import Run
from perdure.store.base import Renewed, RunFacts, RunStore, Store
from perdure.store.lease import Lease
from perdure.store.records import input_record
from perdure.store.session import RunSession

if TYPE_CHECKING:
    from perdure.workflow import Workflow

NAMESPACE = "local"  # of all runs outside a cluster
LEASE_SECONDS = 10.0


def run_in_program(
    workflow: Workflow[Any],
    store: Store,
    run_id: str,
    fields: dict[str, Any],
    *,
    checkpoint: Checkpoint,
    wait: bool,
) -> WorkflowHandler[Any]:
    """Open the run in the background; what goes wrong there is raised by awaiting the handler."""
    check_run_id(run_id)
    return _Handler(
        workflow, run_id, _open(workflow, store, run_id, fields, checkpoint=checkpoint, wait=wait)
    )


class _Handler(WorkflowHandler[Any]):
    """A handler whose run is there once the store has answered."""

    def __init__(self, workflow: Workflow[Any], run_id: str, opening: Any) -> None:
        self._workflow = workflow
        self._run_id = run_id
        self._opening: asyncio.Task[Run | StopEvent] = asyncio.get_running_loop().create_task(opening)

    async def _opened(self) -> Run | StopEvent:
        return await asyncio.shield(self._opening)

    async def _live(self) -> Run:
        await self._opened()
        return self._run

    @property
    def _run(self) -> Run:  # type: ignore[override]
        if not self._opening.done():
            raise ContextStateError(f"run {self._run_id} is not open yet: await something of it first")
        opened = self._opening.result()
        if isinstance(opened, StopEvent):
            raise ContextStateError(f"run {self._run_id} has already ended: await the handler for its result")
        return opened

    @property
    def ctx(self) -> Context[Any]:
        return Context._of_run(self._run)

    @property
    def run_id(self) -> str:
        return self._run_id

    async def stop_event_result(self) -> StopEvent:
        opened = await self._opened()
        return opened if isinstance(opened, StopEvent) else await asyncio.shield(opened.result)

    async def _result(self) -> Any:
        stop = await self.stop_event_result()
        return stop.result if type(stop) is StopEvent else stop

    def is_done(self) -> bool:
        if not self._opening.done() or self._opening.exception() is not None:
            return self._opening.done()
        opened = self._opening.result()
        return isinstance(opened, StopEvent) or opened.result.done()

    def get_stop_event(self) -> StopEvent | None:
        if not self.is_done() or self._opening.exception() is not None:
            return None
        opened = self._opening.result()
        return opened if isinstance(opened, StopEvent) else super().get_stop_event()

    def exception(self) -> BaseException | None:
        if self._opening.done():
            error = self._opening.exception()
            if error is not None or isinstance(self._opening.result(), StopEvent):
                deprecated("WorkflowHandler.exception()", "await the handler")
                return error
        return super().exception()

    async def send_event(self, event: Event, step: str | None = None) -> None:
        run = await self._live()
        run.check_target(event, step)
        run.send_from_outside(event, step)

    async def cancel_run(self, *, timeout: float = 5.0) -> None:
        run = await self._live()
        run.cancel()
        await asyncio.wait([run.result], timeout=timeout)

    async def stream_events(self, expose_internal: bool = False) -> AsyncIterator[Event]:
        opened = await self._opened()
        if isinstance(opened, StopEvent):
            yield opened
            return
        async for event in opened.stream_events(expose_internal=expose_internal):
            yield event

    def __str__(self) -> str:
        name, run_id = self._workflow.workflow_name, self._run_id
        return f"WorkflowHandler(workflow={name}, run_id={run_id}, result={self.get_stop_event()})"


async def _open(
    workflow: Workflow[Any],
    store: Store,
    run_id: str,
    fields: dict[str, Any],
    *,
    checkpoint: Checkpoint,
    wait: bool,
) -> Run | StopEvent:
    slots = workflow._slots
    if slots is None:
        return await _open_now(workflow, store, run_id, fields, checkpoint=checkpoint, wait=wait)
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    slots.enter(lambda: turn.set_result(None))
    await turn
    opened: Run | StopEvent | None = None
    try:
        opened = await _open_now(workflow, store, run_id, fields, checkpoint=checkpoint, wait=wait)
    finally:
        if isinstance(opened, Run):
            opened.result.add_done_callback(lambda _: slots.leave())
        else:
            slots.leave()
    return opened


async def _open_now(
    workflow: Workflow[Any],
    store: Store,
    run_id: str,
    fields: dict[str, Any],
    *,
    checkpoint: Checkpoint,
    wait: bool,
) -> Run | StopEvent:
    run = store.run(NAMESPACE, run_id)
    seal = checkpoint.seal
    await run.init(input_record(fields, seal))
    while True:
        epoch = await _free_epoch(run, run_id, wait=wait)
        if isinstance(epoch, bytes):
            return recorded_result(workflow, epoch)
        holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        session = RunSession(
            run,
            epoch=epoch,
            holder=holder,
            max_bytes=checkpoint.max_bytes,
            replicas=checkpoint.replicas,
            seal=seal,
        )
        sent_at = time.monotonic()
        try:
            acquired = await session.acquire(int(LEASE_SECONDS * 1000))
            break
        except RunEndedError as error:
            return recorded_result(workflow, error.outcome)
        except LeaseLostError:
            continue  # another who asked for it at the same time was first, and holds it now
    snapshot, records = await session.load()
    gate = Gate()
    durable = DurableRun.start(
        workflow,
        session,
        snapshot,
        records,
        acquired=acquired,
        gate=gate,
        durability=checkpoint.durability,
        serializer=checkpoint.serializer,
        run_id=run_id,
    )
    loop = asyncio.get_running_loop()

    def renewed(answer: Renewed, _sent_at: float) -> None:
        loop.call_soon_threadsafe(durable.renewed, answer)

    def lost(reason: str) -> None:
        error = LeaseLostError(
            f"the lease on run {run_id} is lost ({reason}): another holder may have the run"
        )
        loop.call_soon_threadsafe(durable.abandon, error)

    taking: asyncio.Task[None] | None = None

    async def take_again() -> None:
        try:
            await session.reacquire()
        except (LeaseLostError, RunEndedError, StateLostError) as error:
            durable.abandon(error)

    def rolled_back() -> None:
        nonlocal taking
        if taking is None or taking.done():
            taking = loop.create_task(take_again())

    lease = Lease(
        run.renewer(Lease.timeout(LEASE_SECONDS)),
        epoch,
        holder,
        LEASE_SECONDS,
        gate,
        acquired_at=sent_at,
        on_renewed=renewed,
        on_lost=lost,
        on_rolled_back=lambda: loop.call_soon_threadsafe(rolled_back),
    )
    lease.start()
    durable.run.result.add_done_callback(lambda _: lease.stop())
    return durable.run


async def _free_epoch(run: RunStore, run_id: str, *, wait: bool) -> int | bytes:
    """An epoch that nobody has used, or the outcome's JSON. Raises RunHeldError."""
    while True:
        facts = await run.facts()
        if facts.meta is None:
            raise StateLostError(f"the store doesn't know run {run_id} any more")
        if facts.meta.outcome is not None:
            return facts.meta.outcome
        if not facts.meta.holder:
            return facts.meta.epoch
        if _is_free(facts):
            answer = await run.advance(
                facts.meta.epoch + 1, "Crashed" if not facts.meta.released else "Resumed"
            )
            if answer.ok:
                return answer.number
            continue
        if not wait:
            raise RunHeldError(
                f"run {run_id} is held by {facts.meta.holder}: pass wait=True to wait for it, or end that process"
            )
        await asyncio.sleep(min(1.0, facts.lease.expires_in if facts.lease else 1.0))


def _is_free(facts: RunFacts) -> bool:
    """Whether its holder gave the run back, fell silent, or was a process of this host that is gone."""
    assert facts.meta is not None
    if facts.meta.released or facts.lease is None:
        return True
    host, _, rest = facts.meta.holder.partition("/")
    pid = rest.partition("/")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


async def reopen(store: Store, run_id: str) -> None:
    """Let a run that failed be taken up again: the next `workflow.run` of its id starts at the step that failed.

    That step's tries are counted anew; what committed before stays. Raises StateLostError (no such run),
    WorkflowRuntimeError (it has not ended, or there is nothing to take up), and the store's errors.
    """
    run = store.run(NAMESPACE, run_id)
    meta = (await run.facts()).meta
    if meta is None:
        raise StateLostError(f"the store knows no run {run_id}")
    if meta.outcome is None:
        raise WorkflowRuntimeError(f"run {run_id} has not ended: run it again and it goes on")
    reason = json.loads(meta.outcome).get("reason", "")
    if reason in FINAL:
        raise WorkflowRuntimeError(
            f"run {run_id} ended as {reason}, which is final: give a new run another id"
        )
    answer = await run.reopen(meta.epoch + 1, meta.reopened + 1)
    if not answer.ok:
        raise WorkflowRuntimeError(
            f"run {run_id} was changed by another at the same time: look at it, and try again"
        )


def recorded_result(workflow: Workflow[Any], outcome: bytes) -> StopEvent:
    """The StopEvent of a run that ended before. Raises the failure's counterpart when it failed."""
    document = json.loads(outcome)
    reason, message = document.get("reason", ""), document.get("message", "")
    if reason == "Completed":
        event = workflow.serializer.deserialize(document["stopEvent"])
        if not isinstance(event, StopEvent):
            raise WorkflowRuntimeError(f"the recorded result is a {type(event).__name__}, not a StopEvent")
        return event
    if reason == "TimedOut":
        raise WorkflowTimeoutError(message)
    if reason in ("Cancelled", "DeadlineExceeded"):
        raise WorkflowCancelledByUser(message)
    failure = document.get("failure") or {}
    raise WorkflowRuntimeError(
        f"the run ended as {reason}: {failure.get('exceptionType', '')} {failure.get('message', message)}".strip()
    )
