"""What a run's snapshot and log say happened, tick by tick, without the code that it ran.

Pure. What came before the snapshot is summed up in it: the engine needs no more, and nor has this.
What users' events and values hold isn't shown, only what they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from perdure.engine.model import (
    Begin,
    ChildCommit,
    Codec,
    Drain,
    Due,
    EventCodec,
    External,
    Failed,
    Halted,
    Payload,
    Published,
    Refused,
    Reopened,
    Returned,
    Sent,
    Takeover,
    Tick,
    WaitBegan,
    WaitEnded,
    WaitLeft,
    Wrote,
)
from perdure.events import Event
from perdure.store.base import Loaded, Meta
from perdure.store.records import check
from perdure.store.sealing import PLAIN, Seal


@dataclass(slots=True, frozen=True)
class Entry:
    """One thing that happened.

    seq, epoch: of the commit that made it durable, and of who wrote that. time: Unix seconds, of the
    store; of the tick itself, or the last before it that has one. bytes: of its own in the record.
    step, invocation, attempt: whose doing it was, where it was a step's. attempt counts from 1.
    """

    seq: int
    epoch: int
    time: float | None
    bytes: int
    what: str
    step: str = ""
    invocation: int | None = None
    attempt: int | None = None
    detail: str = ""


def _decode(data: bytes) -> Event:
    raise NotImplementedError("a history has no code to read an event with")


_CODEC = Codec(EventCodec(lambda event: b"", _decode))
_RAW = msgspec.msgpack.Decoder(list[msgspec.Raw])


def read(meta: Meta, loaded: Loaded, seal: Seal = PLAIN) -> list[Entry]:
    """In the order of the commits. Raises CheckpointCorruptError, IncompatibleError."""
    snapshot, records = check(loaded, seal)
    entries: list[Entry] = []
    steps = {int(flight.invocation): flight.step for flight in meta.in_flight if flight.invocation.isdigit()}
    attempts: Counter[int] = Counter()
    time: float | None = None
    if snapshot is not None and loaded.snapshot is not None:
        state = _CODEC.decode_state(snapshot)
        for work in state.works.values():
            steps[work.id] = work.step
            attempts[work.id] = work.attempts
        time = state.last_time
        told = f"{_count(state.completed, 'step')} completed before, {_count(len(state.works), 'invocation')} open"
        entries.append(
            Entry(loaded.base, state.epoch or 1, time, len(loaded.snapshot), "snapshot", detail=told)
        )
    ticks = []
    for record in records:
        if record.seq == 0:
            size = len(record.payload)
            entries.append(Entry(0, record.epoch, None, size, "input", detail=_fields(record.payload)))
            continue
        for tick, raw in zip(_CODEC.decode_ticks(record.payload), _RAW.decode(record.payload), strict=True):
            ticks.append((record.seq, record.epoch, tick, len(raw)))
            if isinstance(tick, Returned | Failed) and tick.step:
                steps[tick.work] = tick.step
    for seq, epoch, tick, size in ticks:
        time = getattr(tick, "time", time)
        what, detail = _told(tick)
        whose: int | None = getattr(tick, "work", None) or None
        entries.append(
            Entry(
                seq,
                epoch,
                time,
                size,
                what,
                step=steps.get(whose, "") if whose else "",
                invocation=whose,
                attempt=attempts[whose] + 1 if whose else None,
                detail=detail,
            )
        )
        if isinstance(tick, Failed) and tick.retry_at is not None:
            attempts[tick.work] += 1
    return entries


def _told(tick: Tick) -> tuple[str, str]:
    match tick:
        case Begin(start=start):
            return "began", _kind(start)
        case Takeover(epoch=epoch):
            return "taken over", f"epoch {epoch}: what was cut off runs again"
        case Reopened(epoch=epoch):
            return "reopened", f"epoch {epoch}: at the step that failed it"
        case Refused(kind=kind, reason=reason):
            return "refused", f"{kind}: {reason}"
        case External(event=event):
            return "event in", _kind(event)
        case Sent(event=event):
            return "sent", _kind(event)
        case Published(event=event):
            return "published", _kind(event)
        case Wrote(op="append", key=key, items=items):
            return "wrote", f"{key}: {len(items)} more"
        case Wrote(op="delete", key=key):
            return "wrote", f"{key}: deleted"
        case Wrote(key=key):
            return "wrote", key
        case Returned(events=events):
            return "returned", _kinds(events)
        case Failed(failure=failure, retry_at=retry_at, recovery=recovery):
            then = "tried again" if retry_at is not None else "recovered" if recovery is not None else ""
            name = failure.type.rpartition(".")[2]
            return "failed", f"{name}: {failure.message}{f' ({then})' if then else ''}"
        case WaitBegan(kind=kind):
            return "waits", kind.rpartition(".")[2] or "sleep"
        case WaitEnded(event=event):
            return "goes on", _kind(event) if event is not None else "its time was over"
        case WaitLeft():
            return "stopped waiting", ""
        case Due():
            return "due again", ""
        case ChildCommit(child=child, completed=completed):
            return "child", f"{child}: {f'{completed} of its steps completed' if completed else 'went on'}"
        case Drain():
            return "drained", "nothing more is started in this process"
        case Halted(reason=reason, message=message):
            return "ended", f"{reason}: {message}"


def _kinds(payloads: Sequence[Payload]) -> str:
    kinds = Counter(_kind(payload) for payload in payloads)
    return ", ".join(kind if number == 1 else f"{number} {kind}" for kind, number in kinds.items())


def _kind(payload: Payload) -> str:
    """The class's name, from the text of the event: the class itself may be gone."""
    try:
        name = json.loads(payload.data)["qualified_name"]
    except (ValueError, KeyError, TypeError):
        return "event"  # pickled, or of a serializer of the user's own
    return str(name).rpartition(".")[2]


def _fields(payload: bytes) -> str:
    try:
        fields = json.loads(payload)["input"]
    except (ValueError, KeyError, TypeError):
        return ""
    return ", ".join(fields) if isinstance(fields, Mapping) else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
