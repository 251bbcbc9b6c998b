"""`WorkflowHandler`: what `workflow.run()` returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from perdure.context.context import Context
from perdure.deprecation import deprecated
from perdure.events import Event, StopEvent, WorkflowCancelledEvent

if TYPE_CHECKING:
    from perdure.run import Run

ResultT = TypeVar("ResultT", default=Any)


class WorkflowHandler(Generic[ResultT]):
    """A run under way: await it for its result, read its stream, send it events, cancel it.

    Awaiting raises the failed step's own exception, WorkflowTimeoutError, WorkflowCancelledByUser, or
    (durable) LeaseLostError. Semantics: llama-index-workflows' WorkflowHandler.
    """

    def __init__(self, run: Run, context: Context[Any]) -> None:
        self._run = run
        self._context = context

    @property
    def ctx(self) -> Context[Any]:
        """The run from outside: its state, `to_dict()`, `send_event`."""
        return self._context

    @property
    def run_id(self) -> str:
        return self._run.run_id

    def __await__(self) -> Generator[Any, None, ResultT]:
        return self._result().__await__()

    async def _result(self) -> Any:
        stop = await self.stop_event_result()
        return stop.result if type(stop) is StopEvent else stop

    def is_done(self) -> bool:
        return self._run.result.done()

    def get_stop_event(self) -> StopEvent | None:
        """The event that ended the run, or None while it runs; stands for the failure when it failed."""
        return self._run.stop_event

    async def stop_event_result(self) -> StopEvent:
        """As awaiting the handler, but always the event."""
        stop: StopEvent = await self._run.until(asyncio.shield(self._run.result))
        return stop

    async def send_event(self, event: Event, step: str | None = None) -> None:
        """Give the run an event from outside."""
        self._run.check_target(event, step)
        self._run.send_from_outside(event, step)

    async def cancel_run(self, *, timeout: float = 5.0) -> None:
        """Cancel and wait until the run has ended, at most `timeout` seconds. Raises nothing."""
        self._run.cancel()
        await self._run.until(asyncio.wait([self._run.result], timeout=timeout))

    async def stream_events(self, expose_internal: bool = False) -> AsyncIterator[Event]:
        """The events that steps published, in order, to the StopEvent or the event of the failure."""
        async for event in self._run.stream_events(expose_internal=expose_internal):
            yield event

    # --- deprecated, as in the origin ---------------------------------------------------------------

    def done(self) -> bool:
        """Use `is_done()`."""
        deprecated("WorkflowHandler.done()", "is_done()")
        return self.is_done()

    def cancel(self) -> bool:
        """Use `await cancel_run()`. Whether there was a run to cancel."""
        deprecated("WorkflowHandler.cancel()", "await cancel_run()")
        if self.is_done():
            return False
        self._run.cancel()
        return True

    def cancelled(self) -> bool:
        """Use `get_stop_event()`."""
        deprecated("WorkflowHandler.cancelled()", "get_stop_event()")
        return isinstance(self.get_stop_event(), WorkflowCancelledEvent)

    def exception(self) -> BaseException | None:
        """Await the handler instead. Raises InvalidStateError while the run goes on."""
        deprecated("WorkflowHandler.exception()", "await the handler")
        return self._run.result.exception()

    def __str__(self) -> str:
        name, run_id = self._run.workflow.workflow_name, self.run_id
        return f"WorkflowHandler(workflow={name}, run_id={run_id}, result={self.get_stop_event()})"
