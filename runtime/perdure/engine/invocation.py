"""One execution of a step in this process, and who carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from perdure.engine.model import Ending, Work
from perdure.events import Event

if TYPE_CHECKING:
    from perdure.engine.children import Children


class Invocation:
    """One execution of a step in this process. Closed once the engine expects nothing more of it.

    started: the event loop's time. answers, wait_keys, children: None until it waits for something, or
    begins a child workflow.
    """

    __slots__ = (
        "answers", "children", "closed", "inside", "publishes", "sends", "started", "task",
        "wait_keys", "work",
    )  # fmt: skip

    def __init__(self, work: Work, *, started: float) -> None:
        self.work = work
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        self.inside = False
        self.sends = 0
        self.publishes = 0
        self.started = started
        self.answers: dict[str, asyncio.Future[None]] | None = None
        self.wait_keys: dict[str, int] | None = None
        self.children: Children | None = None


class Host(Protocol):
    """Who runs the engine: calls the steps, shows the events, takes the end."""

    def call(self, invocation: Invocation) -> Awaitable[Any]:
        """Run the step of `invocation.work` with its arguments. Called within the invocation's task."""
        ...

    def show(self, event: Event) -> None:
        """An event for the run's stream; it is durable."""
        ...

    def unhandled(self, event: Event, reason: str) -> None: ...

    def idle(self) -> None:
        """No step runs, waits or is queued, for the first time: only the outside can bring the run on."""
        ...

    def queued(self, work: Work) -> None:
        """All workers of its step are busy. Only while the loop is `watched`."""
        ...

    def resting(self) -> None:
        """Nothing runs until something comes from outside, or a timer. Only while the loop is `watched`."""
        ...

    def outcome(self, ending: Ending) -> bytes:
        """The JSON that the store keeps of how the run ended."""
        ...

    def ended(self, ending: Ending | None, error: BaseException | None) -> None:
        """The run is over in this process: it ended, or `error` says why it can't go on here."""
        ...
