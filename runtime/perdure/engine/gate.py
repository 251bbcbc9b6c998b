"""The gate between the engine and user code: shut while the run's lease is in doubt."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Counts the user code that runs, and keeps more from starting while it is shut.

    The engine calls `enter` before user code begins or goes on after an engine await, and `leave`
    when it ends or enters one. The lease's thread calls `hold`, `park` and `open`. All of it is
    thread-safe, because a step that blocks the event loop must not keep the lease from judging.
    """

    __slots__ = ("_inside", "_lock", "_on_open", "_shut")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._shut = False
        self._on_open: Callable[[], None] | None = None

    def enter(self) -> bool:
        """Whether user code may go on now; when it may, it counts as running until `leave`."""
        with self._lock:
            if self._shut:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def hold(self) -> None:
        """Let nothing more in; what is inside goes on."""
        with self._lock:
            self._shut = True

    def park(self) -> bool:
        """Shut the gate; True when no user code is inside, so that none runs until `open`."""
        with self._lock:
            self._shut = True
            return self._inside == 0

    def open(self) -> None:
        with self._lock:
            self._shut = False
            on_open = self._on_open
        if on_open is not None:
            on_open()

    def when_opened(self, callback: Callable[[], None]) -> None:
        """`callback` is called, from the thread that opens the gate, each time it opens."""
        with self._lock:
            self._on_open = callback
