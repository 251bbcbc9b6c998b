"""`num_concurrent_runs`: how many runs of one workflow object go on at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class RunSlots:
    """At most `limit` at once; the others begin in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        """Call `begin` now or when a slot is free. `leave` must follow it."""
        if self._free:
            self._free -= 1
            begin()
        else:
            self._waiting.append(begin)

    def leave(self) -> None:
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1
