"""State values as bytes: what changed of a key since it was last written, by content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from perdure.engine.model import Value, Wrote

Decode = Callable[[bytes], Any]

_FIXED = frozenset({str, int, float, bool, type(None)})  # what can't be changed in place


class Encoder:
    """Encodes values, lists item by item.

    Of each key it remembers the last list: an item that is still the same object and can't have changed
    isn't encoded again. So a list of names that grows by one and is set again costs a glance at each.
    """

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self.value = encode
        self._last: dict[str, tuple[list[Any], list[bytes]]] = {}

    def items(self, key: str, value: list[Any]) -> list[bytes]:
        encode = self.value
        items, encoded = self._last.get(key, ([], []))
        known = [
            data if item is before and type(item) in _FIXED else encode(item)
            for item, before, data in zip(value, items, encoded, strict=False)
        ]
        known += [encode(item) for item in value[len(known) :]]
        self._last[key] = list(value), known
        return known

    def forget(self, key: str) -> None:
        self._last.pop(key, None)


def difference(
    stored: Value | None,
    op: Literal["set", "append", "delete"],
    key: str,
    value: Any,
    encoder: Encoder,
    work: int,
) -> Wrote | None:
    """The tick that brings `stored` to `value`, or None when that is what is stored.

    A list that only grew costs the bytes of its new items. Whether it only grew is told from the
    encodings of all its items: the old objects may have been changed in place.
    """
    if op == "delete":
        encoder.forget(key)
        return None if stored is None else Wrote(work, "delete", key, [])
    if op == "append" and stored is not None and stored.is_list:
        return Wrote(work, "append", key, [encoder.value(item) for item in value])
    if type(value) is list:
        items = encoder.items(key, value)
        if op == "set" and stored is not None and stored.is_list:
            known = len(stored.items)
            if items[:known] == stored.items:
                return Wrote(work, "append", key, items[known:]) if len(items) > known else None
        return Wrote(work, "list", key, items)
    data = encoder.value(value)
    if stored is not None and not stored.is_list and stored.items == [data]:
        return None
    return Wrote(work, "set", key, [data])


def restore(stored: Value, decode: Decode) -> Any:
    """The live value of what is stored."""
    if stored.is_list:
        return [decode(item) for item in stored.items]
    return decode(stored.items[0])
