"""The one queue between triggers and reconciles: each key once, with delays and back-off."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

Key = TypeVar("Key", bound=Hashable)

log = structlog.get_logger(__name__)


class Schedule(Generic[Key]):
    """When each key is due next; pure of clock and loop.

    A key is in it at most once, at the earliest time asked for. A key that was taken isn't handed out
    again until `done`, so that no two workers reconcile one run at once.
    """

    def __init__(self, backoff: float = 0.1, backoff_limit: float = 60.0) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._active: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._count = 0
        self._backoff = backoff
        self._backoff_limit = backoff_limit

    def __len__(self) -> int:
        return len(self._due) + len(self._active)

    def put(self, key: Key, at: float) -> None:
        """Due at `at`, or at the earlier time already asked for."""
        if key in self._due and self._due[key] <= at:
            return
        self._due[key] = at
        if key not in self._active:
            self._push(key, at)

    def take(self, now: float) -> Key | None:
        """The key that has been due longest, if one is; it is its taker's until `done`."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._active.add(key)
        return key

    def next_at(self) -> float | None:
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def done(self, key: Key) -> None:
        """The taker is through; what was asked for in the meantime counts from now on."""
        self._active.discard(key)
        if key in self._due:
            self._push(key, self._due[key])

    def delay_after_failure(self, key: Key) -> float:
        """Seconds until the next try: doubles with each failure in a row, up to the limit."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(self._backoff_limit, self._backoff * 2.0 ** min(failures - 1, 20))

    def forget_failures(self, key: Key) -> None:
        self._failures.pop(key, None)

    def _push(self, key: Key, at: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))

    def _drop_stale(self) -> None:
        while self._heap:
            at, _, key = self._heap[0]
            if key not in self._active and self._due.get(key) == at:
                return
            heapq.heappop(self._heap)


class WorkQueue(Generic[Key]):
    """A Schedule that can be waited for, in the event loop's time."""

    def __init__(self, schedule: Schedule[Key] | None = None) -> None:
        self._schedule = schedule if schedule is not None else Schedule[Key]()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._schedule)

    def add(self, key: Key, after: float = 0.0) -> None:
        self._schedule.put(key, self._now() + after)
        self._changed.set()

    async def get(self) -> Key:
        while True:
            self._changed.clear()
            key = self._schedule.take(self._now())
            if key is not None:
                return key
            at = self._schedule.next_at()
            try:
                async with asyncio.timeout(None if at is None else max(0.0, at - self._now())):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def failed(self, key: Key) -> float:
        """Queue it again after its back-off; returns the seconds until then."""
        delay = self._schedule.delay_after_failure(key)
        self.add(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        self._schedule.forget_failures(key)

    def done(self, key: Key) -> None:
        self._schedule.done(key)
        self._changed.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class Retry(Exception):
    """Raised by a reconcile that wants its key's back-off without a traceback in the log."""


async def work(queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[float | None]]) -> None:
    """One worker, for ever. `reconcile` answers in how many seconds to look again, None for not.

    Whatever it raises, the key is queued again: a run must not be forgotten because of one bad look.
    """
    while True:
        key = await queue.get()
        try:
            after = await reconcile(key)
        except Retry as why:
            log.info("will look again", key=str(key), why=str(why), seconds=queue.failed(key))
        except Exception:
            log.exception("reconcile failed", key=str(key), seconds=queue.failed(key))
        else:
            queue.succeeded(key)
            if after is not None:
                queue.add(key, after)
        finally:
            queue.done(key)
