"""An event loop whose time is turned, and whose tasks run in an order that a seed decides."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

# Who runs: what is created in a process is of it, and its handles are dropped once it is dead.
process: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """What can be killed at once, as by kill -9: none of its callbacks runs any more, no cleanup either."""

    dead = False

    def __init__(self) -> None:
        self._never: list[Any] = []  # what would have run

    def kill(self, loop: VirtualLoop) -> None:
        """From this moment on: what is ready to run this very moment isn't run either."""
        self.dead = True
        for handle in loop._ready:  # type: ignore[attr-defined]
            if _owner(handle) is self and not handle._cancelled:
                self._never.append(asyncio.Handle(handle._callback, handle._args, loop, handle._context))
                handle.cancel()

    def bury(self, loop: VirtualLoop) -> None:
        """Let its tasks be cancelled like any others, at the end of the test that killed it."""
        self.dead = False
        loop._ready.extend(self._never)  # type: ignore[attr-defined]
        self._never.clear()

    def run(self, action: Callable[[], T]) -> T:
        """Call `action` in this process; all that it begins is of the process, too."""
        token = process.set(self)
        try:
            return action()
        finally:
            process.reset(token)


class Deadlock(AssertionError):
    """Nothing is ready and no timer is armed: whoever waits now would wait for ever."""


class _Timers:
    """In the place of the selector: what there is to wait for is time alone, and it passes at once."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("nothing is ready, and no timer is armed")
        self._loop.now += max(0.0, timeout)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs in no time. seed: shuffles the tasks that are ready together; None keeps asyncio's order.

    Only the order of tasks is open in asyncio: callbacks keep theirs. No I/O, and no threads.
    """

    def __init__(self, seed: int | None = None, *, start: float = 1000.0) -> None:
        super().__init__()
        self.now = start
        self._random = None if seed is None else random.Random(seed)
        self._selector = _Timers(self)
        self.set_task_factory(_quiet_task)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, *_: Any) -> Any:
        # Timers would run out while the thread works, or not: by chance.
        raise RuntimeError("there are no threads in virtual time: run this by asyncio.run")

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        for _ in range(len(ready)):
            handle = ready.popleft()
            if (owner := _owner(handle)) is not None and owner.dead:
                owner._never.append(handle)
            else:
                ready.append(handle)
        if self._random is not None and len(ready) > 1:
            handles = list(ready)
            places = [place for place, handle in enumerate(handles) if _is_task(handle)]
            order = places[:]
            self._random.shuffle(order)
            for place, other in zip(places, order, strict=True):
                ready[place] = handles[other]
        super()._run_once()  # type: ignore[misc]


def _is_task(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


def _owner(handle: Any) -> Process | None:
    return handle._context.get(process) if handle._context is not None else None


def _quiet_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


def run(coroutine: Coroutine[Any, Any, T], seed: int | None = None) -> T:
    """As asyncio.run, in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        return runner.run(coroutine)


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """As `run`, for what has to end within ten minutes: else it is a TimeoutError."""
    return run(asyncio.wait_for(coroutine, 600))
