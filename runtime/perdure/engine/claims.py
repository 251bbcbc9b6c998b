"""The buffers of `collect_events`: what invocations have put in and taken out, final or not yet.

An add or a take is a claim of its invocation: the others see it at once, the log has it when the
invocation completes, and a failure or a retry gives it back.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence

from perdure.engine.model import Claim, Payload, State, Work
from perdure.events import Event

Place = tuple[int, int]  # work, ordinal


class _Buffer:
    __slots__ = ("_expected", "_wanted", "claims", "counts", "taken", "withdrawn")

    def __init__(self, claims: list[Claim]) -> None:
        self.claims: dict[Place, Claim] = {(c.work, c.ordinal): c for c in claims}
        self.counts: Counter[type[Event]] = Counter(type(c.event.event) for c in claims)
        self.taken: dict[Place, Claim] = {}  # while the one who took it is open
        self.withdrawn: set[Place] = set()  # of those taken, what its own invocation failed with since
        self._expected: tuple[Sequence[type[Event]], int] | None = None
        self._wanted: Counter[type[Event]] = Counter()

    def wanted(self, expected: Sequence[type[Event]]) -> Counter[type[Event]]:
        """How many of each type `expected` asks for; counted once for a list that is given again and again."""
        # By identity and length: to compare the contents would cost an event of a large set as much as to count.
        if self._expected is None or self._expected[0] is not expected or self._expected[1] != len(expected):
            self._expected, self._wanted = (expected, len(expected)), Counter(expected)
        return self._wanted

    def add(self, claim: Claim) -> None:
        self.claims[claim.work, claim.ordinal] = claim
        kind = type(claim.event.event)
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def remove(self, place: Place) -> None:
        self.counts[type(self.claims.pop(place).event.event)] -= 1


class Claims:
    """All buffers of a run, by `step/buffer id`, as its open invocations see them."""

    __slots__ = ("_added", "_buffers", "_lock", "_ordinals", "_taken")

    def __init__(self, state: State) -> None:
        self._buffers = {key: _Buffer(claims) for key, claims in state.buffers.items()}
        self._added: dict[int, dict[str, list[Claim]]] = {}
        self._taken: dict[int, dict[str, list[Place]]] = {}
        self._ordinals: dict[int, int] = {}
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
        ordinal = self._ordinals.get(work.id, 0)
        self._ordinals[work.id] = ordinal + 1
        place = (work.id, ordinal)
        # A set that a failed invocation gave back, this one maybe, may be whole by now without the event that
        # came for it: whoever comes next has to take it, since no one else would.
        found = self._take(work, key, buffer, expected) if len(buffer.claims) >= len(expected) else None
        if work.spent and (key, ordinal) in work.spent:
            return found
        if place in buffer.taken:
            buffer.withdrawn.discard(place)
            self._added.setdefault(work.id, {}).setdefault(key, []).append(buffer.taken[place])
            return found
        kind = type(payload.event)
        if buffer.counts.get(kind, 0) < buffer.wanted(expected).get(kind, 0):
            claim = Claim(work.id, ordinal, payload)
            buffer.add(claim)
            self._added.setdefault(work.id, {}).setdefault(key, []).append(claim)
        return found or self._take(work, key, buffer, expected)

    def _take(
        self, work: Work, key: str, buffer: _Buffer, expected: Sequence[type[Event]]
    ) -> list[Event] | None:
        if len(buffer.claims) < len(expected):
            return None
        if any(buffer.counts[kind] < count for kind, count in Counter(expected).items()):
            return None
        by_type: dict[type[Event], deque[Place]] = {}
        for place, claim in buffer.claims.items():
            by_type.setdefault(type(claim.event.event), deque()).append(place)
        places = [by_type[kind].popleft() for kind in expected]
        for place in places:
            buffer.taken[place] = buffer.claims[place]
            buffer.remove(place)
        self._taken.setdefault(work.id, {}).setdefault(key, []).extend(places)
        return [buffer.taken[place].event.event for place in places]

    def settle(self, work: int) -> tuple[dict[str, list[Claim]], dict[str, list[Place]]]:
        """The invocation completes: what it added and took, for the log."""
        if work not in self._ordinals:
            return {}, {}  # it collected nothing, as most don't
        with self._lock:
            return self._settle(work)

    def _settle(self, work: int) -> tuple[dict[str, list[Claim]], dict[str, list[Place]]]:
        added = self._added.pop(work, {})
        taken = self._taken.pop(work, {})
        self._ordinals.pop(work, None)
        for key, places in taken.items():
            buffer = self._buffers[key]
            for place in places:
                del buffer.taken[place]
                buffer.withdrawn.discard(place)
        return added, taken

    def give_back(self, work: int) -> None:
        """The invocation failed: its adds are gone, its takes are back at their old place."""
        with self._lock:
            self._give_back(work)

    def _give_back(self, work: int) -> None:
        self._ordinals.pop(work, None)
        added = self._added.pop(work, {})
        for key, claims in added.items():
            buffer = self._buffers[key]
            for place in ((claim.work, claim.ordinal) for claim in claims):
                if place in buffer.taken:
                    buffer.withdrawn.add(place)
                elif place in buffer.claims:  # else who took it has completed: it is the work's `spent`
                    buffer.remove(place)
        for key, places in self._taken.pop(work, {}).items():
            buffer = self._buffers[key]
            back = {place: buffer.taken.pop(place) for place in places}
            for place in buffer.withdrawn & back.keys():
                del back[place]
                buffer.withdrawn.discard(place)
            buffer.claims = {**back, **buffer.claims}
            buffer.counts.update(type(claim.event.event) for claim in back.values())
