"""What a run published, for who reads it: now, later, or never."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator

from perdure.errors import WorkflowRuntimeError
from perdure.events import Event

log = logging.getLogger("perdure.stream")

MAX_UNREAD = 10_000  # events that are kept while nobody reads


class EventStream:
    """The run's events in publish order, each given once; kept from the start, so that they can be read later.

    While nobody reads, the last MAX_UNREAD of them are kept: a run that is only awaited must not grow by
    what it says. Who reads gets every event from then on, however far behind.
    """

    __slots__ = ("_closed", "_events", "_lost", "_more", "_read", "_readers", "exposed")

    def __init__(self) -> None:
        self.exposed = False  # whether the reader asked for the engine's own events
        # None until there is one: most streams of most runs stay empty, and an empty deque takes 600 bytes.
        self._events: deque[Event] | None = None
        self._more: asyncio.Future[None] | None = None
        self._closed = False
        self._read = False
        self._readers = 0
        self._lost = 0

    def show(self, event: Event) -> None:
        if self._events is None:
            self._events = deque()
        elif len(self._events) >= MAX_UNREAD and not self._readers:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """No event follows."""
        self._closed = True
        self._wake()

    async def read(self, *, expose_internal: bool = False) -> AsyncGenerator[Event]:
        """To the last event. Raises WorkflowRuntimeError when that was given already."""
        self.exposed = expose_internal
        if self._read:
            raise WorkflowRuntimeError("All the streamed events have already been consumed.")
        if self._lost:
            log.warning(
                "the stream was read late: of its events the first %d are gone, the last %d were kept",
                self._lost, MAX_UNREAD,
            )  # fmt: skip
            self._lost = 0
        self._readers += 1
        try:
            while True:
                while self._events:
                    event = self._events.popleft()
                    if not self._events and self._closed:
                        self._read = True
                    yield event
                if self._closed:
                    self._read = True
                    return
                if self._more is None:
                    self._more = asyncio.get_running_loop().create_future()
                # Shielded: two may read, and one that is cancelled must not take the other's future away.
                await asyncio.shield(self._more)
        finally:
            self._readers -= 1

    def _wake(self) -> None:
        more, self._more = self._more, None
        if more is not None and not more.done():
            more.set_result(None)
