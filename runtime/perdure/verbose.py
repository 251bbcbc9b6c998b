"""`Workflow(verbose=True)`: what the steps of a run do, told as it happens."""

from __future__ import annotations

import logging
from collections.abc import Callable

from perdure.events import Event, StepState, StepStateChanged, UnhandledEvent, WorkflowIdleEvent

log = logging.getLogger("perdure.verbose")


def tell(event: Event) -> None:
    """Print what an event of the engine's own says; to the log when `perdure.verbose` shows INFO or DEBUG."""
    line = _line(event)
    if line is not None:
        _output()(line)


def _output() -> Callable[[str], None]:
    if log.isEnabledFor(logging.DEBUG):
        return log.debug
    return log.info if log.isEnabledFor(logging.INFO) else print


def _line(event: Event) -> str | None:
    match event:
        case StepStateChanged(step_state=StepState.PREPARING):
            return f"[{event.name}:{event.worker_id}] queued with {_short(event.input_event_name)}"
        case StepStateChanged(step_state=StepState.RUNNING):
            return f"[{event.name}:{event.worker_id}] started from {_short(event.input_event_name)}"
        case StepStateChanged():
            output = event.output_event_name
            what = f"with {_short(output)}" if output is not None else "without an event"
            return f"[{event.name}:{event.worker_id}] ended {what}"
        case UnhandledEvent():
            return f"[event] {event.event_type} goes nowhere"
        case WorkflowIdleEvent():
            return "[idle] nothing runs"
    return None


def _short(name: str) -> str:
    """`Cls` of "<class 'module.Cls'>"."""
    return name.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
