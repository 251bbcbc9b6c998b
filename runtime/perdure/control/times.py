"""Times of the resource: RFC 3339 with microseconds in JSON, Unix seconds as float in Python."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema


def to_rfc3339(seconds: float) -> str:
    """`1700000000.5` -> `2023-11-14T22:13:20.500000Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> float:
    """Unix seconds. Raises ValueError when `text` is no RFC 3339 time."""
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _read(value: Any) -> Any:
    if isinstance(value, str):
        return from_rfc3339(value)
    return value.timestamp() if isinstance(value, datetime) else value


Time = Annotated[
    float,
    BeforeValidator(_read),
    PlainSerializer(to_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
