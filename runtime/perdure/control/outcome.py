"""The JSON that a run leaves in the store: its outcome, once, and its summary with every commit.

Runner, laptop and operator share these codecs. Reading is defensive: what a newer runner or a
broken one wrote must never stop the one who reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

COMPLETED = "Completed"
MAX_TERMINATION = 4096  # what the kubelet keeps; the rest would no longer be JSON


@dataclass(slots=True, frozen=True)
class Outcome:
    """How a run ended. reason: `Completed`, `StepFailed`, `TimedOut`, `Cancelled`, ...

    failure: {"step", "exceptionType", "message", "traceback"}, each a string, or empty.
    stop_event: the encoded StopEvent, for readers of the event stream.
    """

    reason: str
    message: str = ""
    result: Any = None
    failure: dict[str, Any] = field(default_factory=dict)
    stop_event: Any = None

    @property
    def completed(self) -> bool:
        return self.reason == COMPLETED


@dataclass(slots=True, frozen=True)
class Summary:
    """How far a run is. last_progress_time: store time of the last step completion or state write.

    waiting: whether no step runs; wakes: names of the event types that would bring it on then, at most 8.
    """

    completed_steps: int = 0
    active_steps: tuple[str, ...] = ()
    pending_events: int = 0
    last_step: str = ""
    last_progress_time: float | None = None
    replayed_steps: int = 0
    waiting: bool = False
    wakes: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Termination:
    """A runner's last words to the kubelet: why it exits."""

    epoch: int = 0
    seq: int = 0
    kind: str = ""
    reason: str = ""
    message: str = ""


def encode_outcome(outcome: Outcome) -> bytes:
    """Raises TypeError or ValueError when the result is not JSON."""
    body: dict[str, Any] = {"reason": outcome.reason, "message": outcome.message}
    if outcome.completed:
        body["result"] = outcome.result
    if outcome.failure:
        body["failure"] = outcome.failure
    if outcome.stop_event is not None:
        body["stopEvent"] = outcome.stop_event
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def decode_outcome(data: bytes) -> Outcome:
    """What stands in the store. Unreadable bytes are an end as well, of a kind of its own."""
    body = _object(data)
    if body is None or not isinstance(body.get("reason"), str) or not body["reason"]:
        return Outcome(
            "OutcomeUnreadable", f"the store holds an outcome that is not its JSON: {data[:200]!r}"
        )
    failure = body.get("failure")
    return Outcome(
        reason=body["reason"],
        message=_text(body, "message"),
        result=body.get("result"),
        failure=failure if isinstance(failure, dict) else {},
        stop_event=body.get("stopEvent"),
    )


def encode_summary(summary: Summary) -> bytes:
    return json.dumps(
        {
            "completedSteps": summary.completed_steps,
            "activeSteps": list(summary.active_steps),
            "pendingEvents": summary.pending_events,
            "lastStep": summary.last_step,
            "lastProgressTime": summary.last_progress_time,
            "replayedSteps": summary.replayed_steps,
            "waiting": summary.waiting,
            "wakes": list(summary.wakes),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def decode_summary(data: bytes) -> Summary:
    """Fields that are missing or of another type keep their defaults."""
    body = _object(data) or {}
    active = body.get("activeSteps")
    wakes = body.get("wakes")
    when = body.get("lastProgressTime")
    return Summary(
        completed_steps=_count(body, "completedSteps"),
        active_steps=tuple(_names(active)) if isinstance(active, list) else (),
        pending_events=_count(body, "pendingEvents"),
        last_step=_text(body, "lastStep"),
        last_progress_time=_time(when),
        replayed_steps=_count(body, "replayedSteps"),
        waiting=body.get("waiting") is True,
        wakes=tuple(_names(wakes)) if isinstance(wakes, list) else (),
    )


def encode_termination(words: Termination) -> str:
    """At most MAX_TERMINATION bytes of ASCII; `message` is cut to fit."""
    body = {"epoch": words.epoch, "seq": words.seq, "kind": words.kind, "reason": words.reason[:253]}
    message = words.message[:600]
    while True:
        text = json.dumps({**body, "message": message})
        if len(text) <= MAX_TERMINATION:
            return text
        message = message[: len(message) // 2]


def decode_termination(text: str) -> Termination:
    """Empty words when the runner left none, or something else wrote there."""
    body = _object(text.encode("utf-8", "replace")) or {}
    return Termination(
        epoch=_count(body, "epoch"),
        seq=_count(body, "seq"),
        kind=_text(body, "kind"),
        reason=_text(body, "reason"),
        message=_text(body, "message"),
    )


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
        if b"\\ud" in data.lower():  # half a surrogate pair can't be written to the API server
            body = json.loads(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _count(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _time(value: Any) -> float | None:
    # Beyond the year 9999 there is no RFC 3339, and NaN is no time.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 253_402_300_799:
        return float(value)
    return None


def _names(steps: list[Any]) -> list[str]:
    names = [step.get("step") if isinstance(step, dict) else step for step in steps]
    return [name[:253] for name in names if isinstance(name, str)]
