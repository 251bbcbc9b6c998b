"""The static shape of a workflow, compiled once per class: which step takes which event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.decorators import StepConfig
from perdure.events import Event, HumanResponseEvent, StartEvent, StepFailedEvent
from perdure.validation import list_collectors


@dataclass(slots=True, frozen=True)
class Target:
    """One event parameter of one step. take: for a list parameter, how many events are enough."""

    step: str
    slot: int
    is_list: bool
    take: int | None


@dataclass(slots=True)
class StepInfo:
    """What the engine needs of a step at each of its executions."""

    name: str
    limit: int
    slots: int
    handler: str | None
    max_recoveries: int


class Graph:
    """Routing by exact type, or by subclass where a step asks for that; both looked up once per type.

    taken: names of the event types that steps take while a run goes on; human: of the people's answers in it.
    """

    __slots__ = ("_routes", "collectors", "configs", "human", "shape", "steps", "taken")

    def __init__(self, configs: Mapping[str, StepConfig]) -> None:
        self.configs = dict(configs)
        handlers = {name: c for name, c in configs.items() if c.role == "catch_error"}
        wildcard = next((name for name, c in handlers.items() if c.for_steps is None), None)
        scoped = {step: name for name, c in handlers.items() for step in c.for_steps or ()}
        self.steps = {
            name: StepInfo(
                name=name,
                limit=c.num_workers,
                slots=len(c.slots),
                handler=None if name in handlers else scoped.get(name, wildcard),
                max_recoveries=c.max_recoveries,
            )
            for name, c in configs.items()
        }
        self.collectors = list_collectors(configs)
        # What the rules depend on: the same log folds to the same state only with the same shape.
        self.shape = {name: _shape(config) for name, config in self.configs.items()}
        taken = {
            kind
            for config in self.configs.values()
            for kind in config.accepted_events
            if not issubclass(kind, StartEvent | StepFailedEvent)
        }
        self.taken = sorted(kind.__name__ for kind in taken)
        self.human = sorted(kind.__name__ for kind in taken if issubclass(kind, HumanResponseEvent))
        self._routes: dict[type[Event], tuple[Target, ...]] = {}

    def route(self, kind: type[Event]) -> tuple[Target, ...]:
        """The event parameters, of all steps, that accept `kind`; a recovery's event has its own way."""
        targets = self._routes.get(kind)
        if targets is None:
            targets = tuple(
                Target(name, index, slot.is_list, slot.take)
                for name, config in self.configs.items()
                if config.role != "catch_error"
                for index, slot in enumerate(config.slots)
                if kind in slot.types or (config.accept_event_subclasses and issubclass(kind, slot.types))
            )
            self._routes[kind] = targets
        return targets


def _shape(config: StepConfig) -> str:
    slots = ", ".join(
        "|".join(kind.__qualname__ for kind in slot.types) + ("[]" if slot.is_list else "")
        for slot in config.slots
    )
    returned = "[]" if config.return_list_types else ""
    subclasses = " and subclasses" if config.accept_event_subclasses else ""
    return f"({slots}{subclasses}){returned} x{config.num_workers}"
