"""The two packages that run the same workflows: ours and the one whose API it is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

OURS = "perdure"
THEIRS = "workflows"


class Package:
    """What a workflow's author imports, from the package of that name."""

    def __init__(self, name: str) -> None:
        root, events = import_module(name), import_module(f"{name}.events")
        self.name = name
        self.Workflow: Any = root.Workflow
        self.Context: Any = root.Context
        self.step: Any = root.step
        self.Event: Any = events.Event
        self.StartEvent: Any = events.StartEvent
        self.StopEvent: Any = events.StopEvent
