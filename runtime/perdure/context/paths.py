"""Dotted paths into state: through keys of dicts, indexes of lists and attributes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from perdure.events import DictLikeModel

MAX_DEPTH = 1000
MISSING: Any = object()


def split(path: str) -> list[str]:
    """The segments of `path`. Raises ValueError for more than MAX_DEPTH of them."""
    segments = path.split(".") if path else []
    if len(segments) > MAX_DEPTH:
        raise ValueError(f"Path length exceeds {MAX_DEPTH} segments")
    return segments


def member(holder: Any, segment: str) -> Any:
    """What `segment` names in `holder`, or MISSING."""
    if type(holder) is dict:
        return holder.get(segment, MISSING)
    if isinstance(holder, DictLikeModel):
        # Not getattr: a key named like one of the model's methods would come back as the method.
        if segment in holder._data:
            return holder._data[segment]
        return getattr(holder, segment) if segment in type(holder).model_fields else MISSING
    if isinstance(holder, Mapping):
        return holder.get(segment, MISSING)
    if isinstance(holder, Sequence) and not isinstance(holder, str | bytes):
        try:
            return holder[int(segment)]
        except (ValueError, IndexError):
            return MISSING
    return getattr(holder, segment, MISSING)


def find(root: Any, path: str) -> Any:
    """What stands at `path`, or MISSING; the empty path is the root itself."""
    found = root
    for segment in split(path):
        found = member(found, segment)
        if found is MISSING:
            return MISSING
    return found


def put(root: Any, path: str, value: Any) -> Callable[[], None]:
    """Set `value` at `path`, with dicts made where nothing is yet. Returns what takes it back.

    Raises ValueError for an empty path, or where `path` leads through what has no members.
    """
    segments = split(path)
    if not segments:
        raise ValueError("Path cannot be empty")
    holder = root
    for depth, segment in enumerate(segments[:-1]):
        below = member(holder, segment)
        if below is MISSING:
            # The new dicts are complete before they are joined to the state: one change, one way back.
            for inner in reversed(segments[depth + 1 :]):
                value = {inner: value}
            return _assign(holder, segment, value, path)
        holder = below
    return _assign(holder, segments[-1], value, path)


def _assign(holder: Any, segment: str, value: Any, path: str) -> Callable[[], None]:
    old = member(holder, segment)
    if isinstance(holder, dict | DictLikeModel):
        target: Any = holder
        if isinstance(holder, BaseModel) and segment in type(holder).model_fields:
            setattr(holder, segment, value)
            return lambda: setattr(holder, segment, old)
        target[segment] = value

        def undo() -> None:
            if target.get(segment, MISSING) is not value:
                return
            if old is MISSING:
                del target[segment]
            else:
                target[segment] = old

        return undo
    if isinstance(holder, list):
        if old is MISSING:
            raise ValueError(f"Path {path!r}: a list of {len(holder)} has no index {segment!r}")
        index = int(segment)
        holder[index] = value

        def put_back() -> None:
            holder[index] = old

        return put_back
    try:
        setattr(holder, segment, value)
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"Path {path!r}: {type(holder).__name__} has no member {segment!r} to set"
        ) from error
    if old is MISSING:
        return lambda: delattr(holder, segment)
    return lambda: setattr(holder, segment, old)
