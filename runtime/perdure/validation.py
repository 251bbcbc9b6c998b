"""Whether the steps of a workflow fit together, told from their signatures alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from perdure.collectors import accepts, levels_of, list_collectors
from perdure.decorators import StepConfig
from perdure.errors import WorkflowConfigurationError, WorkflowValidationError
from perdure.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from perdure.resource import ResourceConfig

__all__ = [
    "list_collectors",
    "start_event_class",
    "stop_event_class",
    "validate",
    "validate_resource_configs",
]

Steps = Mapping[str, StepConfig]
KindT = TypeVar("KindT", bound=type[Event])

GRAPH_CHECKS = frozenset({"reachability", "terminal_event", "dead_end"})
# Who sends these, or takes them, is outside the workflow.
_FROM_OUTSIDE = (InputRequiredEvent, HumanResponseEvent, StopEvent, StepFailedEvent)
_TO_OUTSIDE = (InputRequiredEvent, HumanResponseEvent, StopEvent)


def start_event_class(steps: Steps) -> type[StartEvent]:
    """The one StartEvent class that steps accept. Raises WorkflowConfigurationError."""
    _require_steps(steps)
    found = _unique(
        kind for c in steps.values() for kind in c.accepted_events if issubclass(kind, StartEvent)
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise WorkflowConfigurationError(
            "At least one Event of type StartEvent must be received by any step: annotate the first step's"
            " parameter as StartEvent or a subclass of it"
        )
    raise WorkflowConfigurationError(
        f"Only one type of StartEvent is allowed per workflow, found {len(found)}: {_names(found)}"
    )


def stop_event_class(steps: Steps) -> type[StopEvent]:
    """The one StopEvent class that steps return. Raises WorkflowConfigurationError."""
    _require_steps(steps)
    found = _unique(kind for c in steps.values() for kind in returned(c) if issubclass(kind, StopEvent))
    if len(found) == 1:
        return found[0]
    if not found:
        raise WorkflowConfigurationError(
            "At least one Event of type StopEvent must be returned by any step: annotate the last step's"
            " return as StopEvent or a subclass of it"
        )
    raise WorkflowConfigurationError(
        f"Only one type of StopEvent is allowed per workflow, found {len(found)}: {_names(found)}"
    )


def validate(steps: Steps, *, skip: Collection[str] = ()) -> bool:
    """Check all that can be told before a run. True when a person outside takes part in it.

    skip: graph checks to leave out: "reachability", "terminal_event", "dead_end".
    Raises WorkflowConfigurationError or WorkflowValidationError; the message names step and event.
    """
    start = start_event_class(steps)
    stop_event_class(steps)
    _check_lists(steps)
    _check_slot_levels(steps)
    _check_connections(steps, start)
    _check_handlers(steps)
    _check_graph(steps, start, frozenset(skip))
    produced = {kind for config in steps.values() for kind in returned(config)}
    consumed = {kind for config in steps.values() for kind in config.accepted_events}
    return any(issubclass(kind, InputRequiredEvent) for kind in produced) or any(
        issubclass(kind, HumanResponseEvent) for kind in consumed
    )


def validate_resource_configs(steps: Steps) -> None:
    """Load each ResourceConfig that a step needs. Raises WorkflowValidationError for one that can't be."""
    pending = [(name, p.definition, p.annotation) for name, c in steps.items() for p in c.resources]
    seen: set[str] = set()
    while pending:
        name, resource, annotation = pending.pop()
        key = resource.key(annotation)
        if key in seen:
            continue
        seen.add(key)
        if isinstance(resource, ResourceConfig):
            try:
                resource.load(annotation)
            except (ValueError, OSError) as error:
                raise WorkflowValidationError(
                    f"Resource config validation failed: step {name} needs {resource.name}: {error}"
                ) from error
        pending += ((name, needed, kind) for _, needed, kind in resource.dependencies())


def returned(config: StepConfig) -> tuple[type[Event], ...]:
    """All event types a step returns, alone or in lists."""
    return config.return_types + config.return_list_types


def _require_steps(steps: Steps) -> None:
    if not steps:
        raise WorkflowConfigurationError(
            "the workflow has no configured steps: decorate its methods with @step"
        )


def _check_lists(steps: Steps) -> None:
    joined = {name for names in list_collectors(steps).values() for name in names}
    for name, config in steps.items():
        for slot in config.slots:
            if slot.is_list and name not in joined:
                raise WorkflowValidationError(
                    f"step {name}: the parameter {slot.name!r} is a list of {_names(slot.types)}, but no step"
                    f" returns list[...] of what leads to it; return list[{slot.types[0].__name__}] from a"
                    " step, or take single events and use ctx.collect_events"
                )


def _check_slot_levels(steps: Steps) -> None:
    levels = levels_of(steps)
    for name, config in steps.items():
        if len(config.slots) < 2:
            continue
        arriving = [
            {level for kind in levels if accepts(config, slot.types, kind) for level in levels[kind]}
            for slot in config.slots
        ]
        if all(arriving) and not set.intersection(*arriving):
            raise WorkflowValidationError(
                f"step {name}: its events {_names(config.accepted_events)} never meet: some belong to the"
                " stream of a list[...] and others don't; join the stream with a list parameter first"
            )


def _check_connections(steps: Steps, start: type[StartEvent]) -> None:
    produced = _unique([start, *(kind for c in steps.values() for kind in returned(c))])
    for name, config in steps.items():
        for kind in config.accepted_events:
            if issubclass(kind, StopEvent):
                raise WorkflowValidationError(
                    f"step {name} accepts {kind.__name__}: a StopEvent ends the run and no step gets it"
                )
            known = any(accepts(config, (kind,), given) for given in produced)
            if not known and not issubclass(kind, _FROM_OUTSIDE):
                raise WorkflowValidationError(
                    f"The following events are consumed but never produced: {kind.__name__} (by step {name});"
                    " return it from a step, or make it a HumanResponseEvent if it comes from outside"
                )
    for name, config in steps.items():
        for kind in returned(config):
            if not _is_taken(steps, kind) and not issubclass(kind, _TO_OUTSIDE):
                raise WorkflowValidationError(
                    f"The following events are produced but never consumed: {kind.__name__} (by step {name});"
                    " accept it in a step (steps take the exact type unless accept_event_subclasses=True)"
                )


def _is_taken(steps: Steps, kind: type[Event]) -> bool:
    return any(accepts(c, c.accepted_events, kind) for c in steps.values())


def _check_handlers(steps: Steps) -> None:
    handlers = {name: config for name, config in steps.items() if config.role == "catch_error"}
    wildcards = [name for name, config in handlers.items() if config.for_steps is None]
    if len(wildcards) > 1:
        raise WorkflowValidationError(
            f"only one @catch_error may cover all steps, found {', '.join(wildcards)}: give for_steps to the others"
        )
    owner: dict[str, str] = {}
    for name, config in handlers.items():
        for covered in config.for_steps or ():
            if covered not in steps:
                raise WorkflowValidationError(
                    f"@catch_error {name} is for the step {covered!r}, which isn't there; there are"
                    f" {', '.join(sorted(set(steps) - set(handlers)))}"
                )
            if covered in handlers:
                raise WorkflowValidationError(
                    f"@catch_error {name} is for {covered!r}, a handler itself: handlers aren't covered"
                )
            if covered in owner:
                raise WorkflowValidationError(
                    f"the step {covered!r} has two @catch_error handlers, {owner[covered]} and {name}: keep one"
                )
            owner[covered] = name


def _check_graph(steps: Steps, start: type[StartEvent], skip: frozenset[str]) -> None:
    if "reachability" not in skip:
        reached = _reached(steps, start)
        for name, config in steps.items():
            if name not in reached and "reachability" not in config.skip_graph_checks:
                raise WorkflowValidationError(
                    f"step {name} can't be reached from {start.__name__}: no step that can be reached returns"
                    f" {_names(config.accepted_events)}; return it somewhere, or set"
                    ' skip_graph_checks=["reachability"] on the step if it is sent by ctx.send_event'
                )
    if "terminal_event" not in skip:
        for name, config in steps.items():
            for kind in returned(config):
                if not _is_taken(steps, kind) and not issubclass(kind, StopEvent | InputRequiredEvent):
                    raise WorkflowValidationError(
                        f"step {name} returns {kind.__name__}, which no step takes, and which nobody outside waits"
                        " for: accept it in a step, or return an InputRequiredEvent or a StopEvent"
                    )
    if "dead_end" not in skip:
        ending = _ending(steps)
        for name, config in steps.items():
            if returned(config) and name not in ending and "dead_end" not in config.skip_graph_checks:
                raise WorkflowValidationError(
                    f"step {name} is a dead end: no way leads from {_names(returned(config))} to a StopEvent or"
                    ' an InputRequiredEvent; return one, or set skip_graph_checks=["dead_end"] on the step'
                )


def _reached(steps: Steps, start: type[StartEvent]) -> set[str]:
    """The steps that an event can come to, from the start, from people, or from a failure."""
    reached: set[str] = set()
    kinds: list[type[Event]] = [start]
    for name, config in steps.items():
        if config.role == "catch_error":
            reached.add(name)
            kinds += returned(config)
        kinds += (kind for kind in config.accepted_events if issubclass(kind, HumanResponseEvent))
    while kinds:
        kind = kinds.pop()
        for name, config in steps.items():
            if name not in reached and accepts(config, config.accepted_events, kind):
                reached.add(name)
                kinds += returned(config)
    return reached


def _ending(steps: Steps) -> set[str]:
    """The steps from which a StopEvent or a question to a person can be reached."""
    ending = {
        name
        for name, config in steps.items()
        if any(issubclass(kind, StopEvent | InputRequiredEvent) for kind in returned(config))
    }
    while True:
        more = {
            name
            for name, config in steps.items()
            if name not in ending
            for kind in returned(config)
            for other in ending
            if accepts(steps[other], steps[other].accepted_events, kind)
        }
        if not more:
            return ending
        ending |= more


def _unique(kinds: Iterable[KindT]) -> list[KindT]:
    return list(dict.fromkeys(kinds))


def _names(kinds: Iterable[type[Event]]) -> str:
    return ", ".join(sorted(kind.__name__ for kind in kinds))
