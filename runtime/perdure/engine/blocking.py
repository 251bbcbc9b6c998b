"""Says which step keeps the event loop from turning: while it does, no other step of the process gets on.

One thread for all loops of the process looks twice a second which task runs. Only if it is the same one
as before it asks that loop for a sign of life, so a loop that turns is left alone. That costs
microseconds a second, and a step that never comes back is found, too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any

log = logging.getLogger("perdure.engine")

PERIOD = 0.5  # seconds between two looks
LIMIT = 1.0  # seconds without a turn of the loop that are told

STEP = "step "  # how the name of a step's task begins


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Watch the running `loop` until it is closed."""
    if loop not in _WATCH.loops:
        _WATCH.add(loop)


class _Watched:
    """thread: the loop's. task: the one that ran at the last look. asked: when the loop was asked to answer."""

    __slots__ = ("asked", "task", "thread", "told")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.task: weakref.ref[asyncio.Task[Any]] | None = None
        self.asked: float | None = None
        self.told = False

    def answered(self) -> None:
        self.asked, self.told = None, False


class _Watch:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watched] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()
        self._running = False
        self._now = now

    def add(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self.loops[loop] = _Watched()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="perdure-blocking", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(PERIOD)
            with self._lock:
                for loop in [loop for loop in self.loops if loop.is_closed()]:
                    del self.loops[loop]
                if not self.loops:
                    self._running = False
                    return
            self.look_at_all()

    def look_at_all(self) -> None:
        # In a frame of its own: what it holds must not keep a loop alive until the next look.
        with self._lock:
            watched = list(self.loops.items())
        for loop, seen in watched:
            self.look(loop, seen)

    def look(self, loop: asyncio.AbstractEventLoop, seen: _Watched) -> None:
        if seen.asked is not None:
            if not seen.told and self._now() - seen.asked >= LIMIT:
                seen.told = True
                _tell(asyncio.current_task(loop), seen.thread)
            return
        task = asyncio.current_task(loop)
        before = seen.task() if seen.task is not None else None
        seen.task = weakref.ref(task) if task is not None else None
        if task is not None and task is before:
            try:
                loop.call_soon_threadsafe(seen.answered)
            except RuntimeError:  # it was closed just now
                return
            seen.asked = self._now()


def _tell(task: asyncio.Task[Any] | None, thread: int) -> None:
    if task is None:
        return
    name = task.get_name()
    who = name if name.startswith(STEP) else f"task {name}"
    frame = sys._current_frames().get(thread)
    where = traceback.extract_stack(frame)[-1] if frame is not None else None
    place = f", in {where.name} at {where.filename}:{where.lineno}" if where is not None else ""
    log.warning(
        "%s has blocked the event loop for over a second%s: nothing else gets on meanwhile. Await what takes time, "
        "or make it a step that isn't async (it runs in a thread)",
        who, place,
    )  # fmt: skip


_WATCH = _Watch()
