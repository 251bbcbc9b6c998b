"""Type variables of the authoring API."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

from perdure.events import StopEvent

StopEventT = TypeVar("StopEventT", bound=StopEvent)
# What a run returns: a StopEvent's result of any type, or an instance of a StopEvent subclass.
RunResultT: TypeAlias = StopEventT | Any
