"""Streams told from signatures: where the elements of a returned list go, and who joins them.

A step that returns a list opens a stream. Its elements, and what steps make of them, are of the
stream's level; a step with a list parameter joins them and stands one level further out.
"""

from __future__ import annotations

from collections.abc import Mapping

from perdure.decorators import StepConfig
from perdure.events import Event

Steps = Mapping[str, StepConfig]
# The list-returning steps whose streams an event is in, the outermost first.
Level = tuple[str, ...]


def accepts(config: StepConfig, kinds: tuple[type[Event], ...], event: type[Event]) -> bool:
    """Whether a parameter of these `kinds` takes an event of type `event` in this step."""
    return event in kinds or (config.accept_event_subclasses and issubclass(event, kinds))


def list_collectors(steps: Steps) -> dict[str, tuple[str, ...]]:
    """For each step that returns a list: the steps that join a stream of its, in the order of `steps`."""
    found: dict[str, set[str]] = {name: set() for name, c in steps.items() if c.return_list_types}
    # What joins an inner stream decides where the outer one goes on, so this is repeated until it stands.
    changed = True
    while changed:
        changed = False
        for name, known in found.items():
            before = len(known)
            known.update(_joining(steps, steps[name].return_list_types, found))
            changed = changed or len(known) > before
    return {name: tuple(step for step in steps if step in joining) for name, joining in found.items()}


def levels_of(steps: Steps) -> dict[type[Event], set[Level]]:
    """At which levels each event type can arrive. Types nobody returns arrive at the outermost."""
    collectors = list_collectors(steps)
    produced = {kind for c in steps.values() for kind in c.return_types + c.return_list_types}
    levels: dict[type[Event], set[Level]] = {}
    pending: list[tuple[type[Event], Level]] = [
        (kind, ()) for c in steps.values() for kind in c.accepted_events if kind not in produced
    ]
    while pending:
        kind, level = pending.pop()
        if level in levels.setdefault(kind, set()):
            continue
        levels[kind].add(level)
        for name, config in steps.items():
            if not accepts(config, config.accepted_events, kind):
                continue
            if any(slot.is_list for slot in config.slots):
                if not level or name not in collectors[level[-1]]:
                    continue
                out = level[:-1]
            else:
                out = level
            pending += ((made, out) for made in config.return_types)
            # A step within its own stream opens streams without end: one of them stands for all.
            inner = out if name in out else (*out, name)
            pending += ((made, inner) for made in config.return_list_types)
    return levels


def _joining(steps: Steps, elements: tuple[type[Event], ...], collectors: Mapping[str, set[str]]) -> set[str]:
    """The steps with a list parameter that events of the level of `elements` come to."""
    joining: set[str] = set()
    passed: set[str] = set()
    kinds = list(elements)
    while kinds:
        kind = kinds.pop()
        for name, config in steps.items():
            if not accepts(config, config.accepted_events, kind):
                continue
            if any(slot.is_list for slot in config.slots):
                joining.add(name)
            elif name not in passed:
                _pass(steps, name, collectors, passed, kinds)
    return joining


def _pass(
    steps: Steps, name: str, collectors: Mapping[str, set[str]], passed: set[str], kinds: list[type[Event]]
) -> None:
    """Add what step `name`, called at a level, brings back to that level."""
    if name in passed:
        return
    passed.add(name)
    kinds += steps[name].return_types
    for collector in collectors.get(name, ()):
        _pass(steps, collector, collectors, passed, kinds)
