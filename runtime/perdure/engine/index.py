"""Which works wait for what, so that an answer finds its own among thousands without asking each."""

from __future__ import annotations

import json
from typing import Any

_SIMPLE = (str, int, float, bool, type(None))  # of these, what is equal has the same hash

Names = tuple[str, ...]
Values = tuple[Any, ...]


class WaitIndex:
    """Works by the type that they wait for, and by the values that its fields must have.

    Derived from the state, of which it is a part only to be where the rules are: it is neither written
    nor compared, and made anew when it is missed. What it finds is more than what matches, never less.
    """

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        # How many waits of each work stand at a place, for one work may have several.
        self._kinds: dict[str, dict[Names, dict[Values, dict[int, int]]]] = {}

    def add(self, kind: str, requirements: bytes | None, work: int) -> None:
        names, values = _place(requirements)
        works = self._kinds.setdefault(kind, {}).setdefault(names, {}).setdefault(values, {})
        works[work] = works.get(work, 0) + 1

    def remove(self, kind: str, requirements: bytes | None, work: int) -> None:
        names, values = _place(requirements)
        places = self._kinds[kind][names]
        works = places[values]
        works[work] -= 1
        if not works[work]:
            del works[work]
        if not works:
            del places[values]

    def find(self, kind: str, event: object) -> set[int]:
        """The works with a wait that `event`, which is of `kind`, may answer."""
        found: set[int] = set()
        for names, places in self._kinds.get(kind, {}).items():
            values = tuple(getattr(event, name, None) for name in names)
            if all(type(value) in _SIMPLE for value in values):
                found.update(places.get(values, ()))
            else:  # an enum's member, say, equals its value and has another hash
                for works in places.values():
                    found.update(works)
        return found

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, WaitIndex)

    __hash__ = None  # type: ignore[assignment]


def _place(requirements: bytes | None) -> tuple[Names, Values]:
    """The fields whose values can be looked up, and these values."""
    if requirements is None:
        return (), ()
    wanted = {name: value for name, value in json.loads(requirements).items() if type(value) in _SIMPLE}
    return tuple(wanted), tuple(wanted.values())
