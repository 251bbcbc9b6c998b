"""State values as bytes: what changed of a key since it was last written, by content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from perdure.engine.model import Value, Wrote

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


def difference(
    stored: Value | None,
    op: Literal["set", "append", "delete"],
    key: str,
    value: Any,
    encode: Encode,
    work: int,
) -> Wrote | None:
    """The tick that brings `stored` to `value`, or None when that is what is stored.

    A list that only grew costs the bytes of its new items. Whether it only grew is told from the
    encodings of all its items: the old objects may have been changed in place.
    """
    if op == "delete":
        return None if stored is None else Wrote(work, "delete", key, [])
    if op == "append" and stored is not None and stored.is_list:
        return Wrote(work, "append", key, [encode(item) for item in value])
    if type(value) is list:
        items = [encode(item) for item in value]
        if op == "set" and stored is not None and stored.is_list:
            known = len(stored.items)
            if items[:known] == stored.items:
                return Wrote(work, "append", key, items[known:]) if len(items) > known else None
        return Wrote(work, "list", key, items)
    data = encode(value)
    if stored is not None and not stored.is_list and stored.items == [data]:
        return None
    return Wrote(work, "set", key, [data])


def restore(stored: Value, decode: Decode) -> Any:
    """The live value of what is stored."""
    if stored.is_list:
        return [decode(item) for item in stored.items]
    return decode(stored.items[0])
