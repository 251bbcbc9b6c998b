"""The timers of a run: those of waits by their wait, so that an answer takes its timer away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._armed: set[asyncio.TimerHandle] = set()
        self._waits: dict[tuple[int, str], asyncio.TimerHandle] = {}

    def arm(self, delay: float, callback: Callable[[], None], wait: tuple[int, str] | None = None) -> None:
        """Call `callback` in `delay` seconds, at once for a time that is past."""

        def fire() -> None:
            self._armed.discard(handle)
            callback()

        handle = self._loop.call_later(max(0.0, delay), fire)
        self._armed.add(handle)
        if wait is not None:
            self._waits[wait] = handle

    def disarm(self, wait: tuple[int, str]) -> None:
        """Forget the timer of a wait that is over: it might keep its step's memory for days."""
        handle = self._waits.pop(wait, None)
        if handle is not None:
            handle.cancel()
            self._armed.discard(handle)

    def __len__(self) -> int:
        return len(self._armed)

    def cancel(self) -> None:
        for handle in self._armed:
            handle.cancel()
        self._armed.clear()
        self._waits.clear()
