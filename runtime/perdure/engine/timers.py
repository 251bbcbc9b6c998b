"""The timers of a run: those of waits by their wait, so that an answer takes its timer away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    __slots__ = ("_armed", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._armed: dict[object, asyncio.TimerHandle] = {}  # by wait, or by an object of its own

    def arm(self, delay: float, callback: Callable[[], None], wait: tuple[int, str] | None = None) -> None:
        """Call `callback` in `delay` seconds, at once for a time that is past. A wait has one timer."""
        if wait is not None:
            self.disarm(wait)
        key: object = object() if wait is None else wait

        def fire() -> None:
            if self._armed.get(key) is handle:
                del self._armed[key]
            callback()

        handle = self._armed[key] = self._loop.call_later(max(0.0, delay), fire)

    def disarm(self, wait: tuple[int, str]) -> None:
        """Forget the timer of a wait that is over: it might keep its step's memory for days."""
        handle = self._armed.pop(wait, None)
        if handle is not None:
            handle.cancel()

    def __len__(self) -> int:
        return len(self._armed)

    def cancel(self) -> None:
        for handle in self._armed.values():
            handle.cancel()
        self._armed.clear()
