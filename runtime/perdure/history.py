"""What a run's snapshot and log say happened, tick by tick, without the code that it ran.

Pure. What came before the snapshot is summed up in it: the engine needs no more, and nor has this.
What users' events and values hold isn't shown, only what they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    State,
    Takeover,
    Tick,
    WaitBegan,
    WaitEnded,
    WaitLeft,
    Wrote,
)
from perdure.events import Event
from perdure.store.base import Loaded, Meta
from perdure.store.records import Record, check
from perdure.store.sealing import PLAIN, Seal


@dataclass(slots=True, frozen=True)
class Entry:
    """One thing that happened.

    seq, epoch: of the commit that made it durable, and of who wrote that. time: Unix seconds, of the
    store; of the tick itself, or the last before it that has one. bytes: of its own in the record.
    step, invocation, attempt: whose doing it was, where it was a step's. attempt counts from 1. child:
    of which child workflow it was, by the ids that lead to it; "" for the run's own.
    """

    seq: int
    epoch: int
    time: float | None
    bytes: int
    what: str
    child: str = ""
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
    reader = _Reader()
    for flight in meta.in_flight:
        if flight.invocation.isdigit():
            reader.scope("").steps[int(flight.invocation)] = flight.step
    entries: list[Entry] = []
    if snapshot is not None and loaded.snapshot is not None:
        state = _CODEC.decode_state(snapshot)
        reader.begin("", state)
        told = f"{_count(state.completed, 'step')} completed before, {_count(len(state.works), 'invocation')} open"
        size = len(loaded.snapshot)
        entries.append(Entry(loaded.base, state.epoch or 1, state.last_time, size, "snapshot", detail=told))
    ticks = []
    for record in records:
        if record.seq == 0:
            size = len(record.payload)
            entries.append(Entry(0, record.epoch, None, size, "input", detail=_fields(record.payload)))
        else:
            ticks += [(record, *found) for found in reader.ticks("", record.payload)]
    # Only now, since what a tick's step is called may be told by a later one.
    time = entries[-1].time if entries else None
    for record, where, tick, size in ticks:
        time = getattr(tick, "time", time)
        entries.append(reader.entry(record, where, tick, size, time))
    return entries


class _Scope:
    """What is known of the works of one workflow: the run's own, or a child's."""

    __slots__ = ("attempts", "name", "steps")

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: dict[int, str] = {}
        self.attempts: Counter[int] = Counter()

    def note(self, tick: Tick) -> None:
        if isinstance(tick, Failed) and tick.retry_at is not None:
            self.attempts[tick.work] += 1


class _Reader:
    """Goes through ticks, those of children in their parents'. A scope's key: "", or works and children's ids."""

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope] = {"": _Scope("")}

    def scope(self, key: str) -> _Scope:
        return self._scopes[key]

    def begin(self, key: str, state: State) -> None:
        """The scope is as `state` has it, and so are its children's."""
        scope = self.scope(key)
        scope.attempts.clear()
        for work in state.works.values():
            scope.steps[work.id] = work.step
            scope.attempts[work.id] = work.attempts
            for child, log in (work.children or {}).items():
                inner = self._child(key, work.id, child)
                if log.snapshot is not None:
                    self.begin(inner, _CODEC.decode_state(log.snapshot))
                for record in log.records:
                    for where, tick, _ in self.ticks(inner, record):
                        self.scope(where).note(tick)

    def ticks(self, key: str, payload: bytes) -> Iterator[tuple[str, Tick, int]]:
        """Each tick of `payload`, with its scope's key and its bytes; a child's before what they are for its parent."""
        for tick, raw in zip(_CODEC.decode_ticks(payload), _RAW.decode(payload), strict=True):
            if isinstance(tick, Returned | Failed) and tick.step:
                self.scope(key).steps[tick.work] = tick.step
            if isinstance(tick, ChildCommit) and tick.ticks:
                yield from self.ticks(self._child(key, tick.work, tick.child), tick.ticks)
            yield key, tick, len(raw)

    def entry(self, record: Record, key: str, tick: Tick, size: int, time: float | None) -> Entry:
        scope = self.scope(key)
        what, detail = _told(tick)
        whose: int | None = getattr(tick, "work", None) or None
        found = Entry(
            record.seq,
            record.epoch,
            time,
            size,
            what,
            child=scope.name,
            step=scope.steps.get(whose, "") if whose else "",
            invocation=whose,
            attempt=scope.attempts[whose] + 1 if whose else None,
            detail=detail,
        )
        scope.note(tick)
        if isinstance(tick, ChildCommit) and tick.snapshot is not None:
            self.begin(self._child(key, tick.work, tick.child), _CODEC.decode_state(tick.snapshot))
        return found

    def _child(self, key: str, work: int, child: str) -> str:
        inner = f"{key}{work}.{child}/"
        if inner not in self._scopes:
            outer = self.scope(key).name
            self._scopes[inner] = _Scope(f"{outer}/{child}" if outer else child)
        return inner


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
