"""The engine's nouns: events in transit, what can happen (ticks), what is known (state), what to do (commands).

Ticks and state are msgspec structs, so that one definition is the type, the log's format and the
snapshot's. What a struct holds of user data is a `Payload`: encoded once, when it is first written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.engine.index import WaitIndex
from perdure.engine.journal import FlightChange
from perdure.errors import CheckpointCorruptError
from perdure.events import Event

# What this version reads. A state is of format 1 until a child workflow commits to it: so a run without
# children can still be taken up by a version that knows none.
FORMAT = 2
WITH_CHILDREN = 2


class Payload:
    """An event in transit: the object, its encoding, or both; each is made from the other when needed."""

    __slots__ = ("_codec", "_data", "_event")

    def __init__(self, event: Event | None, codec: EventCodec, data: bytes | None = None) -> None:
        self._event = event
        self._codec = codec
        self._data = data

    @property
    def event(self) -> Event:
        if self._event is None:
            assert self._data is not None
            self._event = self._codec.decode(self._data)
        return self._event

    @property
    def data(self) -> bytes:
        # Kept from the first time on: what is written later must not depend on what user code did
        # to the object meanwhile.
        if self._data is None:
            assert self._event is not None
            self._data = self._codec.encode(self._event)
        return self._data

    @property
    def size(self) -> int:
        """Bytes of its encoding, 0 where there is none: a run in memory encodes nothing."""
        return 0 if self._data is None else len(self._data)

    def encode(self) -> None:
        """Encode now. Raises ValueError when the serializer can't."""
        _ = self.data

    def __repr__(self) -> str:
        return f"Payload({self._event!r})" if self._event is not None else f"Payload({self._data!r})"


class EventCodec:
    """Turns events into bytes and back, by the run's serializer."""

    __slots__ = ("decode", "encode")

    def __init__(self, encode: Callable[[Event], bytes], decode: Callable[[bytes], Event]) -> None:
        self.encode = encode
        self.decode = decode


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """An exception of a step, as it is kept: the object itself lives only in its own process."""

    type: str
    message: str
    traceback: str = ""


# --- ticks: what happened -------------------------------------------------------------------------


class Begin(msgspec.Struct, array_like=True, tag="begin"):
    """The run's StartEvent. graph: `Graph.shape`, which the log can't be folded without."""

    time: float
    start: Payload
    graph: dict[str, str]


class Takeover(msgspec.Struct, array_like=True, tag="takeover"):
    """A process took the run up where another left it."""

    time: float
    epoch: int


class Reopened(msgspec.Struct, array_like=True, tag="reopened"):
    """A run that failed is taken up again, at the step that failed it."""

    time: float
    epoch: int


class External(msgspec.Struct, array_like=True, tag="external"):
    """An event from outside the steps; for one step, or for all that accept it. inbox: its id there, if it came so.

    ordinal, digest: in a child workflow, of what its parent's step sent it, as those of `Sent`.
    """

    time: float
    event: Payload
    step: str | None = None
    inbox: str = ""
    ordinal: int = 0
    digest: bytes = b""


class Refused(msgspec.Struct, array_like=True, tag="refused"):
    """An event of the inbox that is none of this workflow's: it is taken out, and changes nothing else."""

    time: float
    inbox: str
    id: str
    kind: str
    reason: str


class Sent(msgspec.Struct, array_like=True, tag="sent"):
    """`ctx.send_event`, the invocation's `ordinal`-th; `digest` tells a replay that it was sent already."""

    work: int
    ordinal: int
    digest: bytes
    event: Payload
    step: str | None = None


class Published(msgspec.Struct, array_like=True, tag="published"):
    """`ctx.write_event_to_stream`, as `Sent`."""

    work: int
    ordinal: int
    digest: bytes
    event: Payload


class Wrote(msgspec.Struct, array_like=True, tag="wrote"):
    """A change of one top-level key of the state: its encoded value, items, or new items.

    work: 0 for a write from outside the steps.
    op: "set", "list" (the whole list, item by item), "append", "delete".
    """

    work: int
    op: str
    key: str
    items: list[bytes]


class Claim(msgspec.Struct, array_like=True):
    """An event that `collect_events` added: whose it is, and which of that invocation's."""

    work: int
    ordinal: int
    event: Payload


class Returned(msgspec.Struct, array_like=True, tag="returned"):
    """A step returned: nothing, an event, or (`many`) a list of them, which opens a stream.

    added, taken: what its `collect_events` put into and took out of buffers, by buffer. step: whose
    work it was, for who reads the log without the code.
    """

    time: float
    work: int
    events: list[Payload]
    many: bool = False
    added: dict[str, list[Claim]] = {}
    taken: dict[str, list[tuple[int, int]]] = {}
    step: str = ""


class Failed(msgspec.Struct, array_like=True, tag="failed"):
    """A step raised. first_at: when its first execution began. retry_at: when it is tried again, as its retry policy decided, or None.

    recovery: the StepFailedEvent for a `catch_error` step, where one covers the step. step: as `Returned`.
    """

    time: float
    work: int
    failure: Failure
    first_at: float
    retry_at: float | None = None
    recovery: Payload | None = None
    step: str = ""


class WaitBegan(msgspec.Struct, array_like=True, tag="wait"):
    """`wait_for_event`. kind: the event's type. requirements: JSON."""

    work: int
    key: str
    kind: str
    requirements: bytes | None
    deadline: float | None
    prompt: Payload | None


class WaitEnded(msgspec.Struct, array_like=True, tag="woke"):
    """A wait got its event, or (None) its time was over."""

    time: float
    work: int
    key: str
    event: Payload | None


class WaitLeft(msgspec.Struct, array_like=True, tag="left"):
    """A step gave a wait up: its own timeout, or another wait, was first."""

    work: int
    key: str


class Due(msgspec.Struct, array_like=True, tag="due"):
    """The delay of a retry is over."""

    time: float
    work: int


class Drain(msgspec.Struct, array_like=True, tag="drain"):
    """This process is to go: nothing more is started in it."""

    time: float


class Halted(msgspec.Struct, array_like=True, tag="halt"):
    """The run ends by no step of its own: Cancelled, TimedOut, or what an operator wants of it."""

    time: float
    reason: str
    message: str
    event: Payload | None = None
    resumable: bool = False


class ChildCommit(msgspec.Struct, array_like=True, tag="child"):
    """A child workflow of a running step committed.

    ticks: the child's, encoded; opaque here, for they are of another graph. snapshot: given in place of
    them, the child's whole state. completed: how many of its steps completed with it. flight: as a
    `Batch` has it.
    """

    time: float
    work: int
    child: str
    ticks: bytes
    snapshot: bytes | None = None
    completed: int = 0
    flight: list[FlightChange] = []


Tick = (
    Begin | Takeover | Reopened | External | Refused | Sent | Published | Wrote | Returned | Failed | WaitBegan | WaitEnded
    | WaitLeft | Due | Drain | Halted | ChildCommit
)  # fmt: skip


# --- state: what is known -------------------------------------------------------------------------


class Work(msgspec.Struct, array_like=True):
    """One execution of a step for its event or events: queued, delayed, in flight or waiting.

    stream: of the innermost list it descends from, 0 for none. recoveries: how often each
    `catch_error` step has recovered its lineage. sent, published: digests of what it gave away, so
    that a replay doesn't give it again. event: of a step with one event parameter; several: of one
    that takes a list, or several. children: the child workflows that it began, by their ids.
    """

    id: int
    step: str
    event: Payload | None
    several: list[Payload] | None = None
    stream: int = 0
    attempts: int = 0
    first_at: float = 0.0
    failed_at: float = 0.0
    retry_at: float | None = None
    failure: Failure | None = None
    recoveries: dict[str, int] | None = None
    sent: list[bytes] | None = None
    published: list[bytes] | None = None
    waits: dict[str, Wait] | None = None
    spent: list[tuple[str, int]] | None = None
    children: dict[str, Child] | None = None

    @property
    def events(self) -> list[Payload]:
        """Its event, or all of several; none when it was called for an empty list."""
        return [self.event] if self.event is not None else self.several or []


class Child(msgspec.Struct, array_like=True):
    """The log of a child workflow: what was committed since its last snapshot.

    reopened: the step that runs it is tried anew, after the parent had failed of it. flight: ids of its
    invocations in flight, and of its children's.
    """

    snapshot: bytes | None
    records: list[bytes]
    reopened: bool = False
    flight: set[str] = set()


class Wait(msgspec.Struct, array_like=True):
    """One `wait_for_event` of an invocation: open, answered (`event`) or timed out."""

    type: str
    requirements: bytes | None
    deadline: float | None
    event: Payload | None = None
    over: bool = False


class StepQueue(msgspec.Struct, array_like=True):
    """The work of one step: ids queued (head first), ids that hold a worker slot, ids that wait.

    answered: those among the queued whose wait got its answer, so that they go on rather than begin.
    """

    queued: deque  # type: ignore[type-arg]
    active: set[int]
    waiting: set[int]
    answered: set[int] = set()


class Stream(msgspec.Struct, array_like=True):
    """The descendants of one returned list: closes when none of them is open any more.

    recoveries: those of the lineage that the list's producer is of.
    """

    producer: str
    parent: int
    open: int
    items: dict[str, list[Payload]]
    released: set[str]
    recoveries: dict[str, int] | None = None


class Value(msgspec.Struct, array_like=True):
    """An encoded value of the state: whole, or a list item by item, so that an append is one item."""

    items: list[bytes]
    is_list: bool = False


class Ending(msgspec.Struct, array_like=True):
    """How the run ended. stop: its StopEvent, or the event that stands for its failure. work: the one that failed."""

    reason: str
    message: str = ""
    step: str = ""
    failure: Failure | None = None
    stop: Payload | None = None
    work: int = 0


class State(msgspec.Struct):
    """All that the engine knows of a run. `fold(log)` gives it, a snapshot is its encoding.

    given, shown: of a child workflow only. The digests of what its parent's step sent it, and what it
    published: a parent's step that is run again reads its child's stream from the start.
    """

    format: int = 1
    next_id: int = 1
    begun: bool = False
    graph: dict[str, str] = {}
    draining: bool = False
    ending: Ending | None = None
    epoch: int = 0
    alive: float = 0.0  # seconds, of the processes before this one
    taken_at: float = 0.0
    works: dict[int, Work] = {}
    steps: dict[str, StepQueue] = {}
    streams: dict[int, Stream] = {}
    joins: dict[str, list[list[tuple[Payload, dict[str, int] | None]]]] = {}
    buffers: dict[str, list[Claim]] = {}
    early: list[Payload] = []
    awaited: dict[str, set[int]] = {}  # works with an open wait, by its event's type
    index: WaitIndex | None = None  # the same by what the waits ask for, once there are many
    store: dict[str, Value] = {}
    completed: int = 0
    replayed: int = 0
    last_step: str = ""
    last_time: float = 0.0  # of the last tick
    progressed_at: float = 0.0  # when a step last completed
    given: list[bytes] = []
    shown: list[Payload] | None = None


# --- commands: what to do, once the ticks before are durable ----------------------------------------


class Start(msgspec.Struct, gc=False):
    """Run a step."""

    work: Work


class Resume(msgspec.Struct, gc=False):
    """A waiting invocation may go on; one that has no coroutine here is run from its start.

    answered: the keys of its waits that were over by the command's own tick. One that is answered while
    that is on its way to the store is not durable with it.
    """

    work: Work
    answered: list[str]


class Publish(msgspec.Struct, gc=False):
    """Show an event to readers of the run's stream."""

    event: Payload


class Wake(msgspec.Struct, gc=False):
    """Come back with `Due` (key is None) or with the end of a wait, at `at`."""

    at: float
    work: int
    key: str | None = None


class Unhandled(msgspec.Struct, gc=False):
    """An event that no step accepts, or that came for a list without being of a stream."""

    event: Payload
    reason: str


class Finish(msgspec.Struct, gc=False):
    """The run has ended: cancel what still runs, show the last event."""

    ending: Ending


Command = Start | Resume | Publish | Wake | Unhandled | Finish


# --- encoding -------------------------------------------------------------------------------------


def _enc_hook(value: Any) -> Any:
    if isinstance(value, Payload):
        return value.data
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, WaitIndex):
        return None
    raise NotImplementedError(f"can't encode a {type(value).__name__}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_enc_hook)


class Codec:
    """Encodes ticks and states of one run; events by `events`, everything else by msgspec."""

    __slots__ = ("_events", "_state", "_ticks")

    def __init__(self, events: EventCodec) -> None:
        self._events = events
        # Made when they are needed: a run in memory encodes and decodes nothing.
        self._ticks: msgspec.msgpack.Decoder[list[Tick]] | None = None
        self._state: msgspec.msgpack.Decoder[State] | None = None

    def payload(self, event: Event) -> Payload:
        return Payload(event, self._events)

    def encode_ticks(self, ticks: list[Tick]) -> bytes:
        return _ENCODER.encode(ticks)

    def encode_state(self, state: State) -> bytes:
        return _ENCODER.encode(state)

    def decode_ticks(self, data: bytes) -> list[Tick]:
        """Raises CheckpointCorruptError when `data` isn't what `encode_ticks` gives."""
        if self._ticks is None:
            self._ticks = msgspec.msgpack.Decoder(list[Tick], dec_hook=self._dec_hook)
        try:
            return self._ticks.decode(data)
        except msgspec.MsgspecError as error:
            raise CheckpointCorruptError(f"a record of the log can't be read: {error}") from error

    def decode_state(self, data: bytes) -> State:
        """Raises CheckpointCorruptError when `data` isn't what `encode_state` gives."""
        if self._state is None:
            self._state = msgspec.msgpack.Decoder(State, dec_hook=self._dec_hook)
        try:
            return self._state.decode(data)
        except msgspec.MsgspecError as error:
            raise CheckpointCorruptError(f"the snapshot can't be read: {error}") from error

    def _dec_hook(self, kind: type, value: Any) -> Any:
        if kind is Payload:
            return Payload(None, self._events, value)
        if kind is deque:
            return deque(value)
        raise NotImplementedError(f"can't decode a {kind.__name__}")
