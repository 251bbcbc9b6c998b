"""The buffers of `collect_events`: what invocations have put in and taken out, final or not yet.

An add or a take is a claim of its invocation: the others see it at once, the log has it when the
invocation completes, and a failure or a retry gives it back.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from perdure.engine.model import Claim, Payload, State, Work
from perdure.events import Event

Place = tuple[int, int]  # work, ordinal


class _Buffer:
    __slots__ = ("claims", "counts", "taken")

    def __init__(self, claims: list[Claim]) -> None:
        self.claims: dict[Place, Claim] = {(c.work, c.ordinal): c for c in claims}
        self.counts: Counter[type[Event]] = Counter(type(c.event.event) for c in claims)
        self.taken: dict[Place, tuple[Claim, int]] = {}  # and by whom, while that one is open


class Claims:
    """All buffers of a run, by `step/buffer id`, as its open invocations see them."""

    def __init__(self, state: State) -> None:
        self._buffers = {key: _Buffer(claims) for key, claims in state.buffers.items()}
        self._added: dict[int, dict[str, list[Claim]]] = {}
        self._taken: dict[int, dict[str, list[Place]]] = {}
        self._ordinals: Counter[int] = Counter()
        self._lock = threading.Lock()  # steps that aren't async collect from threads

    def collect(
        self, work: Work, payload: Payload, expected: Sequence[type[Event]], buffer_id: str
    ) -> list[Event] | None:
        """Add the event of `payload`; the whole set, in the order of `expected`, once it is there.

        An event that isn't expected, or not any more, is dropped.
        """
        if not expected:
            return []
        with self._lock:
            return self._collect(work, payload, expected, buffer_id)

    def _collect(
        self, work: Work, payload: Payload, expected: Sequence[type[Event]], buffer_id: str
    ) -> list[Event] | None:
        key = f"{work.step}/{buffer_id}"
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = _Buffer([])
        ordinal = self._ordinals[work.id]
        self._ordinals[work.id] = ordinal + 1
        place = (work.id, ordinal)
        if work.spent and (key, ordinal) in work.spent:
            return None
        if place in buffer.taken:
            claim, _ = buffer.taken[place]
            self._added.setdefault(work.id, {}).setdefault(key, []).append(claim)
            return None
        kind = type(payload.event)
        if buffer.counts[kind] >= expected.count(kind):
            return None
        claim = Claim(work.id, ordinal, payload)
        buffer.claims[place] = claim
        buffer.counts[kind] += 1
        self._added.setdefault(work.id, {}).setdefault(key, []).append(claim)
        if len(buffer.claims) < len(expected):
            return None
        return self._take(work, key, buffer, expected)

    def _take(
        self, work: Work, key: str, buffer: _Buffer, expected: Sequence[type[Event]]
    ) -> list[Event] | None:
        wanted = Counter(expected)
        if any(buffer.counts[kind] < count for kind, count in wanted.items()):
            return None
        by_type: dict[type[Event], list[Claim]] = {}
        for claim in buffer.claims.values():
            by_type.setdefault(type(claim.event.event), []).append(claim)
        taken = [by_type[kind].pop(0) for kind in expected]
        for claim in taken:
            buffer.taken[claim.work, claim.ordinal] = (claim, work.id)
        self._taken.setdefault(work.id, {}).setdefault(key, []).extend((c.work, c.ordinal) for c in taken)
        buffer.claims.clear()
        buffer.counts.clear()
        return [claim.event.event for claim in taken]

    def settle(self, work: int) -> tuple[dict[str, list[Claim]], dict[str, list[Place]]]:
        """The invocation completes: what it added and took, for the log."""
        with self._lock:
            return self._settle(work)

    def _settle(self, work: int) -> tuple[dict[str, list[Claim]], dict[str, list[Place]]]:
        added = self._added.pop(work, {})
        taken = self._taken.pop(work, {})
        self._ordinals.pop(work, None)
        for key, places in taken.items():
            for place in places:
                self._buffers[key].taken.pop(place, None)
        return added, taken

    def give_back(self, work: int) -> None:
        """The invocation failed: its adds are gone, its takes are back at their old place."""
        with self._lock:
            self._give_back(work)

    def _give_back(self, work: int) -> None:
        self._ordinals.pop(work, None)
        for key, places in self._taken.pop(work, {}).items():
            buffer = self._buffers[key]
            back = {place: buffer.taken.pop(place)[0] for place in places if place in buffer.taken}
            buffer.claims = {**back, **buffer.claims}
            buffer.counts.update(type(c.event.event) for c in back.values())
        for key, claims in self._added.pop(work, {}).items():
            buffer = self._buffers[key]
            for claim in claims:
                if buffer.claims.pop((claim.work, claim.ordinal), None) is not None:
                    buffer.counts[type(claim.event.event)] -= 1
