"""The contract of a store: what a run's keys hold, and what every script answers.

`memory.py` and `redis.py` pass one contract suite (tests/integration/test_store_contract.py).
Times are seconds as float unless a name says otherwise; `*_ms` are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from perdure.engine.journal import FlightChange


class Tag(StrEnum):
    """The first word of every script's reply."""

    OK = "OK"
    FENCED = "FENCED"  # another epoch or holder has the run; `number` is the store's epoch
    GAP = "GAP"  # the store's last seq is `number`, below what the commit follows
    CONFLICT = "CONFLICT"  # the same seq with other bytes: a bug in the caller
    OUTCOME = "OUTCOME"  # the run has ended; `data` is its outcome
    NOMETA = "NOMETA"  # the store doesn't know the run
    INBOX = "INBOX"  # an event came in that was not acknowledged
    FULL = "FULL"  # the inbox holds `number` entries and takes no more


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a script answered. `number` is a seq or an epoch, as the script's head says."""

    tag: Tag
    number: int = 0
    data: bytes = b""

    @property
    def ok(self) -> bool:
        return self.tag is Tag.OK


@dataclass(slots=True, frozen=True)
class Acquired:
    """`acquire` succeeded. `digest` is of the record at `seq`, as its commit gave it.

    restarted: the store's server is another process than at the last acquire, and it doesn't sync
    every write to disk: its unsynced tail may be missing.
    """

    seq: int
    desired: str
    cause: str
    store_time: float
    restarted: bool
    digest: str = ""


@dataclass(slots=True, frozen=True)
class Renewed:
    """`renew` succeeded. `desired` is what the operator wants of the run."""

    desired: str
    inbox_last_id: str
    store_time: float


# Thousands of them are held at a time: what the garbage collector would look through again and again
# is made of immutable things only.
class Commit(msgspec.Struct, frozen=True, gc=False):
    """One commit of one record; `record` is framed (`records.frame`) and frozen once sent.

    digest: of `record`, as hex; tells the same batch sent twice from two batches.
    previous: the digest of the record that it follows, "" when that isn't known; another one there is a GAP.
    events: encoded events to publish; inbox_ack: acknowledge the inbox up to this id ("" for none).
    """

    seq: int
    digest: str
    record: bytes
    progress: bool = False
    flight: tuple[FlightChange, ...] = ()
    summary: bytes = b"{}"
    outcome: bytes | None = None
    events: tuple[bytes, ...] = ()
    inbox_ack: str = ""
    previous: str = ""


@dataclass(slots=True, frozen=True)
class Message:
    """An event from outside. id: the sender's, taken once. kind: its type's name. data: its fields as JSON."""

    id: str
    kind: str
    data: bytes


# What an inbox holds at most: a sender that doesn't stop must not fill the server.
INBOX_ENTRIES = 10_000
INBOX_BYTES = 16 * 1024 * 1024


@dataclass(slots=True, frozen=True)
class Loaded:
    """A run's durable state: `snapshot` stands for all up to seq `base`, `records` follow it, to `seq`.

    `snapshot` is None and `base` -1 before the first cut. Both are framed.
    """

    seq: int
    base: int
    snapshot: bytes | None
    records: list[bytes]


@dataclass(slots=True, frozen=True)
class InFlight:
    """An invocation of a step that began and has not ended, and how often a crash cut it off."""

    invocation: str
    step: str
    cuts: int


@dataclass(slots=True, frozen=True)
class Lease:
    epoch: int
    holder: str
    expires_in: float


@dataclass(slots=True, frozen=True)
class Meta:
    """The fields of a run's `meta` hash that others than its runner read."""

    epoch: int
    holder: str = ""
    seq: int = 0
    step_seq: int = 0
    base: int = -1
    outcome: bytes | None = None
    released: str = ""
    wake_at: float | None = None
    desired: str = "Running"
    cause: str = ""
    in_flight: tuple[InFlight, ...] = ()
    fenced: int = 0
    summary: bytes = b"{}"
    commit_time: float = 0.0
    log_bytes: int = 0
    snapshot_bytes: int = 0
    restarts: int = 0
    deleted: bool = False
    reopened: int = 0


@dataclass(slots=True, frozen=True)
class RunFacts:
    """One consistent read of a run: a single script."""

    meta: Meta | None
    lease: Lease | None
    inbox_pending: int
    store_time: float


@dataclass(slots=True, frozen=True)
class StoreFacts:
    """What the server says of itself.

    run_id: the server process's own id; changes with each restart.
    durable: what a restart may lose, "always" (nothing), "everysec" (about a second), "no" (more),
    "unknown" (the service doesn't say).
    promoted: it was a replica once, and may lack what the primary before it had acknowledged.
    settings: CONFIG's answers, as far as it gave any. info: INFO's fields.
    """

    run_id: str
    role: str
    version: str
    durable: str
    store_time: float
    promoted: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)


class Renewer(Protocol):
    """Renews one run's lease over a connection of its own, blocking: for a thread, not for a loop."""

    def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        """As `RunStore.renew`; raises the same errors."""
        ...

    def close(self) -> None: ...


class RunStore(Protocol):
    """One run's keys. Each method is one script, or one pipeline of reads.

    All raise StoreUnavailableError when the server can't be reached, is loading, full or read-only,
    and StoreAccessError when it refuses the credentials or the command.
    """

    async def init(self, record: bytes, *, installation: str = "") -> Reply:
        """Create `meta` at epoch 1 and record 0 (the input), only if absent. OK(epoch) either way.

        CONFLICT when `meta` is gone and a log or snapshot is left: the store lost a part of the run.
        """
        ...

    async def acquire(self, epoch: int, holder: str, ttl_ms: int) -> Acquired | Reply:
        """Take the run: an epoch is used by one holder, once. FENCED(store's epoch), OUTCOME, NOMETA."""
        ...

    async def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        """Prolong the lease. FENCED(store's epoch), OUTCOME, NOMETA."""
        ...

    def renewer(self, timeout: float) -> Renewer:
        """A lease client of its own; `timeout` bounds each connect, send and reply, in seconds."""
        ...

    async def commit(self, epoch: int, holder: str, commit: Commit, *, replicas: int = 0) -> Reply:
        """OK(seq) | FENCED(store's epoch) | GAP(store's seq) | CONFLICT(store's seq) | OUTCOME | NOMETA.

        replicas: how many of them must have it, in memory, before the answer is OK. When they haven't within
        a second it is StoreUnavailableError, though the store itself has the record: send it again.
        GAP's `data` is the digest at the store's seq: whether that record is the caller's own.
        """
        ...

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> Reply:
        """Let `snapshot` stand for the log up to `seq`.

        OK(base) also when a later one does. GAP(store's seq) when `seq` isn't committed, CONFLICT when
        the upload isn't what was sent (try again), FENCED(store's epoch), OUTCOME, NOMETA.
        """
        ...

    async def release(
        self, epoch: int, holder: str, kind: str, *, wake_at: float | None = None, inbox_seen: str = ""
    ) -> Reply:
        """Give the run back: kind `yield`, `idle` or `suspended`.

        INBOX when it is `idle` and an event after `inbox_seen` came in; FENCED, OUTCOME, NOMETA.
        """
        ...

    async def send(self, message: Message) -> Reply:
        """Put an event from outside into the inbox, once per id.

        OK(events that wait, 0 when the id was taken before), FULL(events that wait), OUTCOME, NOMETA.
        Ids are remembered for the last INBOX_ENTRIES events. As a commit, what was taken can be lost
        with a server that doesn't sync every write.
        """
        ...

    async def inbox(self, after: str, count: int) -> list[tuple[str, Message]]:
        """The first `count` events behind the inbox id `after` ("" for the first), each with its inbox id."""
        ...

    async def load(self) -> Loaded | None:
        """Snapshot and log tail in one consistent read; None when the store doesn't know the run."""
        ...

    async def facts(self) -> RunFacts: ...

    async def server(self) -> StoreFacts:
        """What the server that has this run says of itself."""
        ...

    async def advance(self, epoch: int, cause: str, *, deleted: bool = False) -> Reply:
        """The takeover's fence: OK(epoch now). Upwards only; clears holder, lease and released.

        OUTCOME when there is one (unless `deleted`), NOMETA.
        """
        ...

    async def finish(self, epoch: int, outcome: bytes) -> Reply:
        """Fence and set the outcome if there is none: OUTCOME with what stands.

        FENCED(store's epoch) when `epoch` isn't above it: decided on an old observation. NOMETA.
        """
        ...

    async def reopen(self, epoch: int, number: int) -> Reply:
        """Take the outcome off a run that failed and fence, for the `number`-th time (from 1).

        OK(epoch now), also when that was done before; FENCED(store's epoch) when `epoch` isn't above it;
        NOMETA.
        """
        ...

    async def set_desired(self, desired: str) -> Reply: ...

    async def clean(self) -> None:
        """Remove all keys of the run. Not an error when there are none."""
        ...


class Store(Protocol):
    """One server (or cluster of them): many runs."""

    def run(self, namespace: str, uid: str) -> RunStore: ...

    async def identity(self, namespace: str, *, create: bool = False) -> str | None:
        """The random id at `perdure:NAMESPACE:store`, made if absent and asked for."""
        ...

    async def server(self, namespace: str) -> StoreFacts:
        """What the server says of itself; of a cluster, the one that has the namespace's identity."""
        ...

    async def close(self) -> None: ...
