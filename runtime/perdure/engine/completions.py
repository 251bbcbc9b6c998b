"""What an execution of a step comes to, as a tick: its return, or its failure and what is done about that."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import Callable
from typing import Any

from perdure.engine.claims import Claims
from perdure.engine.failures import failure_of
from perdure.engine.graph import Graph
from perdure.engine.invocation import Invocation
from perdure.engine.model import Failed, Payload, Returned, Work
from perdure.errors import WorkflowRuntimeError
from perdure.events import CollectionReleaseEvent, Event, StepFailedEvent, load_exception
from perdure.retry_policy import takes


class Completions:
    """Those of one run: settles what they claimed, and keeps the exceptions that a tick can't carry.

    error, attempts, elapsed: of the failure that ended the run; elapsed in seconds.
    """

    __slots__ = ("_claims", "_errors", "_graph", "_now", "_payload", "attempts", "elapsed", "error")

    def __init__(
        self, graph: Graph, claims: Claims, payload: Callable[[Event], Payload], now: Callable[[], float]
    ) -> None:
        self._graph = graph
        self._claims = claims
        self._payload = payload
        self._now = now
        self._errors: dict[int, BaseException] = {}  # the last one of each work that is tried again
        self.error: BaseException | None = None
        self.attempts: int | None = None
        self.elapsed: float | None = None

    def returned(self, invocation: Invocation, result: Any) -> Returned:
        """Raises WorkflowRuntimeError for a result that is no event, and ValueError as `payload` does."""
        work = invocation.work
        config = self._graph.configs[work.step]
        if result is None:
            events: list[Payload] = []
        elif isinstance(result, Event):
            if config.return_list_types and not isinstance(result, config.return_types or ()):
                raise WorkflowRuntimeError(
                    f"Step function {work.step} returned one {type(result).__name__}, but declares a list of "
                    f"them: return [event]."
                )
            events = [self._payload(result)]
        elif isinstance(result, list) and config.return_list_types:
            for item in result:
                if not isinstance(item, Event):
                    raise WorkflowRuntimeError(
                        f"Step function {work.step} returned a list with a {type(item).__name__} in it "
                        f"instead of Event instances."
                    )
            events = [self._payload(item) for item in result]
        else:
            raise WorkflowRuntimeError(
                f"Step function {work.step} returned {type(result).__name__} instead of an Event instance."
            )
        if self._errors:
            self._errors.pop(work.id, None)
        added, taken = self._claims.settle(work.id)
        return Returned(self._now(), work.id, events, isinstance(result, list), added, taken, work.step)

    def failed(self, invocation: Invocation, error: BaseException) -> Failed:
        work = invocation.work
        self._claims.give_back(work.id)
        now = self._now()
        first_at = work.first_at or now - (asyncio.get_running_loop().time() - invocation.started)
        try:
            retry_at = self._retry_at(work, error, now - first_at, now)
        except Exception as broken:  # a policy that raises decides nothing: its error is the step's
            broken.__cause__ = error
            error, retry_at = broken, None
        recovery = None
        handler = self._graph.steps[work.step].handler
        if retry_at is None and handler is not None:
            used = (work.recoveries or {}).get(handler, 0)
            if used < self._graph.steps[handler].max_recoveries:
                recovery = self._payload(self._step_failed(work, error, now - first_at, now))
        if retry_at is None and recovery is None:
            self.error = error
            self.attempts, self.elapsed = work.attempts + 1, now - first_at
        elif retry_at is not None:
            self._errors[work.id] = error
        return Failed(
            time=now,
            work=work.id,
            failure=failure_of(error),
            first_at=first_at,
            retry_at=retry_at,
            recovery=recovery,
            step=work.step,
        )

    def _retry_at(self, work: Work, error: BaseException, elapsed: float, now: float) -> float | None:
        policy = self._graph.configs[work.step].retry_policy
        if policy is None or not isinstance(error, Exception):
            return None
        # Drawn once: the log has the delay that came of it.
        seed = {"seed": random.getrandbits(32)} if takes(policy.next, "seed") else {}
        delay = policy.next(elapsed, work.attempts + 1, error, **seed)
        return None if delay is None else now + delay

    def _step_failed(self, work: Work, error: BaseException, elapsed: float, now: float) -> StepFailedEvent:
        return StepFailedEvent(
            step_name=work.step,
            input_event=work.event.event if work.event is not None else _gathered(work),
            exception=error if isinstance(error, Exception) else WorkflowRuntimeError(repr(error)),
            attempts=work.attempts + 1,
            elapsed_seconds=elapsed,
            failed_at=datetime.datetime.fromtimestamp(now, datetime.UTC),
        )

    def last_error(self, work: Work) -> Exception | None:
        """What the last try of `work` raised; built again from its name and message after a restart."""
        error = self._errors.get(work.id)
        if error is None and work.failure is not None:
            return load_exception(
                {"exception_type": work.failure.type, "exception_message": work.failure.message}
            )
        return error if isinstance(error, Exception) else None


def _gathered(work: Work) -> CollectionReleaseEvent:
    """What stands for the events of a step that takes several, or a list that may be empty."""
    return CollectionReleaseEvent(events=[payload.event for payload in work.several or []])
