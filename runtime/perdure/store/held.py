"""What a holder keeps of its commits, in case the store loses what it had not yet synced to its disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from perdure.store.base import Commit

# Redis syncs every second, and puts writes off only once a sync has run for two.
KEEP_SECONDS = 3.0


class Held:
    """The last commits, no longer than KEEP_SECONDS and within `max_bytes`; always the last one's digest."""

    def __init__(self, clock: Callable[[], float], max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._kept: deque[tuple[float, Commit]] = deque()
        self._bytes = 0
        self._floor, self._floor_digest = 0, ""

    def begin(self, seq: int, digest: str) -> None:
        """The store stands at `seq`; nothing of it is this holder's own."""
        if self._floor == seq and self._floor_digest == digest:
            return
        self._kept.clear()
        self._bytes = 0
        self._floor, self._floor_digest = seq, digest

    def add(self, commit: Commit) -> None:
        now = self._clock()
        self._kept.append((now, commit))
        self._bytes += len(commit.record)
        while self._kept and (self._kept[0][0] < now - KEEP_SECONDS or self._bytes > self._max_bytes):
            _, gone = self._kept.popleft()
            self._bytes -= len(gone.record)
            self._floor, self._floor_digest = gone.seq, gone.digest

    def digest(self, seq: int) -> str | None:
        """Of the record at `seq`, if it is known."""
        index = seq - self._floor - 1
        if index == -1:
            return self._floor_digest
        return self._kept[index][1].digest if 0 <= index < len(self._kept) else None

    def after(self, seq: int) -> list[Commit] | None:
        """All commits after `seq`, in order; None when one of them isn't held any more."""
        if seq < self._floor:
            return None
        return [commit for _, commit in self._kept if commit.seq > seq]
