"""`WorkflowTestRunner`: runs a workflow to its end and keeps what it published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from perdure.context import Context
from perdure.events import Event, StartEvent
from perdure.workflow import Workflow


@dataclass
class WorkflowTestResult:
    """collected: the stream's events, in order. event_types: how many of each type those are."""

    collected: list[Event]
    event_types: dict[type[Event], int]
    result: Any
    ctx: Context[Any]


class WorkflowTestRunner:
    """For tests of a workflow from end to end. Semantics: llama-index-workflows' WorkflowTestRunner."""

    def __init__(self, workflow: Workflow[Any]) -> None:
        self._workflow = workflow

    async def run(
        self,
        start_event: StartEvent | None = None,
        ctx: Context[Any] | None = None,
        expose_internal: bool = True,
        exclude_events: Collection[type[Event]] | None = None,
    ) -> WorkflowTestResult:
        """Run it. exclude_events: types that aren't collected. Raises what awaiting the run raises."""
        start = start_event if start_event is not None else StartEvent()
        handler = self._workflow.run(ctx=ctx, start_event=start)
        excluded = set(exclude_events or ())
        collected = [
            event
            async for event in handler.stream_events(expose_internal=expose_internal)
            if type(event) not in excluded
        ]
        result = await handler
        types = dict(Counter(type(event) for event in collected))
        return WorkflowTestResult(collected=collected, event_types=types, result=result, ctx=handler.ctx)
