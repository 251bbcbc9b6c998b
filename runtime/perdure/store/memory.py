"""The store in this process's memory: the same rules as the scripts, for tests and models."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from perdure.errors import StoreUnavailableError
from perdure.store import records
from perdure.store.base import (
    INBOX_BYTES,
    INBOX_ENTRIES,
    Acquired,
    Commit,
    InFlight,
    Lease,
    Loaded,
    Message,
    Meta,
    Renewed,
    Reply,
    RunFacts,
    StoreFacts,
    Tag,
)

CUTTING = frozenset({"Crashed", "OOMKilled", "LeaseExpired", "Fenced", "StartTimeout"})


@dataclass(slots=True)
class _Run:
    log: list[bytes]
    epoch: int = 1
    holder: str = ""
    seq: int = 0
    digest: str = ""
    step_seq: int = 0
    base: int = -1
    outcome: bytes | None = None
    released: str = ""
    wake_at: float | None = None
    desired: str = "Running"
    cause: str = ""
    flight: dict[str, InFlight] = field(default_factory=dict)
    fenced: int = 0
    summary: bytes = b"{}"
    commit_time: float = 0.0
    snapshot: bytes | None = None
    restarts: int = 0
    server: str = ""
    deleted: bool = False
    lease: tuple[int, str, float] | None = None
    reopened: int = 0
    inbox: list[tuple[str, Message]] = field(default_factory=list)
    last_inbox_id: tuple[int, int] = (0, 0)
    sent: dict[str, None] = field(default_factory=dict)  # ids, the oldest first
    events: list[bytes] = field(default_factory=list)


class MemoryStore:
    """clock: seconds, the store's time. `restart()` makes it another server, as after a crash."""

    def __init__(self, clock: Callable[[], float] = time.time, *, durable: str = "always") -> None:
        self.clock = clock
        self.durable = durable
        self.server_id = secrets.token_hex(8)
        self.runs: dict[tuple[str, str], _Run] = {}
        self._identities: dict[str, str] = {}

    def restart(self) -> None:
        self.server_id = secrets.token_hex(8)

    def run(self, namespace: str, uid: str) -> MemoryRunStore:
        return MemoryRunStore(self, namespace, uid)

    async def identity(self, namespace: str, *, create: bool = False) -> str | None:
        if create:
            self._identities.setdefault(namespace, secrets.token_hex(16))
        return self._identities.get(namespace)

    async def server(self, namespace: str) -> StoreFacts:
        return StoreFacts(
            run_id=self.server_id,
            role="master",
            version="memory",
            durable=self.durable,
            store_time=self.clock(),
        )

    async def close(self) -> None:
        pass


class MemoryRunStore:
    """One run in a MemoryStore."""

    def __init__(self, store: MemoryStore, namespace: str, uid: str) -> None:
        self._store = store
        self._key = (namespace, uid)

    def _get(self) -> _Run | None:
        return self._store.runs.get(self._key)

    async def server(self) -> StoreFacts:
        return await self._store.server(self._key[0])

    async def init(self, record: bytes, *, installation: str = "") -> Reply:
        first = _Run(log=[record], digest=records.digest(record), server=self._store.server_id)
        return Reply(Tag.OK, self._store.runs.setdefault(self._key, first).epoch)

    async def acquire(self, epoch: int, holder: str, ttl_ms: int) -> Acquired | Reply:
        run = self._get()
        if run is None or run.deleted:
            return Reply(Tag.NOMETA)
        if run.outcome is not None:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if epoch < run.epoch:
            return Reply(Tag.FENCED, run.epoch)
        if epoch == run.epoch and run.holder and (run.holder != holder or run.released):
            return Reply(Tag.FENCED, run.epoch)
        now = self._store.clock()
        restarted = bool(
            run.server and run.server != self._store.server_id and self._store.durable != "always"
        )
        if epoch == run.epoch and not run.holder and run.cause in CUTTING:
            run.flight = {
                name: InFlight(name, entry.step, entry.cuts + 1) for name, entry in run.flight.items()
            }
        run.epoch, run.holder, run.released, run.wake_at = epoch, holder, "", None
        run.server = self._store.server_id
        run.restarts += restarted
        run.lease = (epoch, holder, now + ttl_ms / 1000)
        return Acquired(
            seq=run.seq,
            digest=run.digest,
            desired=run.desired,
            cause=run.cause,
            store_time=now,
            restarted=restarted,
        )

    def _renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        if run.outcome is not None:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if (epoch, holder) != (run.epoch, run.holder) or run.released:
            return Reply(Tag.FENCED, run.epoch)
        now = self._store.clock()
        run.lease = (epoch, holder, now + ttl_ms / 1000)
        last = run.inbox[-1][0] if run.inbox else ""
        return Renewed(desired=run.desired, inbox_last_id=last, store_time=now)

    async def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        return self._renew(epoch, holder, ttl_ms)

    def renewer(self, timeout: float) -> MemoryRenewer:
        return MemoryRenewer(self)

    async def commit(self, epoch: int, holder: str, commit: Commit, *, replicas: int = 0) -> Reply:
        answer = self._committed(epoch, holder, commit)
        if answer.ok and replicas:
            raise StoreUnavailableError(f"this process's memory has 0 of {replicas} replicas")
        return answer

    def _committed(self, epoch: int, holder: str, commit: Commit) -> Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        mine = (epoch, holder) == (run.epoch, run.holder)
        if run.outcome is not None:
            if mine and (commit.seq, commit.digest) == (run.seq, run.digest):
                return Reply(Tag.OK, run.seq)
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if not mine or run.released:
            run.fenced += 1
            return Reply(Tag.FENCED, run.epoch)
        if commit.seq <= run.seq:
            same = commit.seq < run.seq or commit.digest == run.digest
            return Reply(Tag.OK if same else Tag.CONFLICT, run.seq)
        if commit.seq > run.seq + 1 or (commit.previous and commit.previous != run.digest):
            return Reply(Tag.GAP, run.seq, run.digest.encode())
        run.log.append(commit.record)
        run.seq, run.digest = commit.seq, commit.digest
        run.summary, run.commit_time = commit.summary, self._store.clock()
        if commit.progress:
            run.step_seq = commit.seq
        for sign, name, step in commit.flight:
            if sign == "-":
                run.flight.pop(name, None)
            elif sign == "+":
                run.flight.setdefault(name, InFlight(name, step, 0))
            elif name in run.flight:
                run.flight[name] = InFlight(name, run.flight[name].step, 0)
        if commit.inbox_ack:
            limit = _stream_id(commit.inbox_ack)
            run.last_inbox_id = max(run.last_inbox_id, limit)
            run.inbox = [entry for entry in run.inbox if _stream_id(entry[0]) > limit]
        run.events.extend(commit.events)
        if commit.outcome is not None:
            run.outcome, run.lease = commit.outcome, None
        return Reply(Tag.OK, run.seq)

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        if run.outcome is not None:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if (epoch, holder) != (run.epoch, run.holder) or run.released:
            return Reply(Tag.FENCED, run.epoch)
        if seq <= run.base:
            return Reply(Tag.OK, run.base)
        if seq > run.seq:
            return Reply(Tag.GAP, run.seq)
        del run.log[: seq - run.base]
        run.snapshot, run.base = snapshot, seq
        return Reply(Tag.OK, seq)

    async def release(
        self, epoch: int, holder: str, kind: str, *, wake_at: float | None = None, inbox_seen: str = ""
    ) -> Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        if run.outcome is not None:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if (epoch, holder) != (run.epoch, run.holder):
            return Reply(Tag.FENCED, run.epoch)
        if run.released:
            return Reply(Tag.OK, run.epoch)
        seen = _stream_id(inbox_seen) if inbox_seen else (0, 0)
        if kind == "idle" and any(_stream_id(entry[0]) > seen for entry in run.inbox):
            return Reply(Tag.INBOX)
        run.released, run.wake_at, run.lease = kind, wake_at, None
        return Reply(Tag.OK, run.epoch)

    async def send(self, message: Message) -> Reply:
        run = self._get()
        if run is None or run.deleted:
            return Reply(Tag.NOMETA)
        if message.id in run.sent:
            return Reply(Tag.OK)
        if run.outcome is not None:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        waiting = sum(len(entry.data) for _, entry in run.inbox)
        if len(run.inbox) >= INBOX_ENTRIES or waiting + len(message.data) > INBOX_BYTES:
            return Reply(Tag.FULL, len(run.inbox))
        last = run.last_inbox_id
        run.last_inbox_id = max((int(self._store.clock() * 1000), 0), (last[0], last[1] + 1))
        run.inbox.append((f"{run.last_inbox_id[0]}-{run.last_inbox_id[1]}", message))
        run.sent[message.id] = None
        if len(run.sent) > INBOX_ENTRIES:
            del run.sent[next(iter(run.sent))]
        return Reply(Tag.OK, len(run.inbox))

    async def inbox(self, after: str, count: int) -> list[tuple[str, Message]]:
        run = self._get()
        if run is None:
            return []
        seen = _stream_id(after) if after else (0, 0)
        return [entry for entry in run.inbox if _stream_id(entry[0]) > seen][:count]

    async def load(self) -> Loaded | None:
        run = self._get()
        if run is None:
            return None
        return Loaded(seq=run.seq, base=run.base, snapshot=run.snapshot, records=list(run.log))

    async def facts(self) -> RunFacts:
        run, now = self._get(), self._store.clock()
        if run is None:
            return RunFacts(meta=None, lease=None, inbox_pending=0, store_time=now)
        lease = None
        if run.lease is not None and run.lease[2] > now:
            lease = Lease(run.lease[0], run.lease[1], run.lease[2] - now)
        meta = Meta(
            epoch=run.epoch,
            holder=run.holder,
            seq=run.seq,
            step_seq=run.step_seq,
            base=run.base,
            outcome=run.outcome,
            released=run.released,
            wake_at=run.wake_at,
            desired=run.desired,
            cause=run.cause,
            in_flight=tuple(sorted(run.flight.values(), key=lambda f: f.invocation)),
            fenced=run.fenced,
            summary=run.summary,
            commit_time=run.commit_time,
            log_bytes=sum(map(len, run.log)),
            snapshot_bytes=len(run.snapshot or b""),
            restarts=run.restarts,
            deleted=run.deleted,
            reopened=run.reopened,
        )
        return RunFacts(meta=meta, lease=lease, inbox_pending=len(run.inbox), store_time=now)

    async def advance(self, epoch: int, cause: str, *, deleted: bool = False) -> Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        if run.outcome is not None and not deleted:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if epoch <= run.epoch:
            if not deleted or run.deleted:
                return Reply(Tag.OK, run.epoch)
            epoch = run.epoch + 1
        run.epoch, run.holder, run.released, run.cause = epoch, "", "", cause
        run.wake_at = run.lease = None
        run.deleted = run.deleted or deleted
        return Reply(Tag.OK, run.epoch)

    async def finish(self, epoch: int, outcome: bytes) -> Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        if run.outcome is not None:
            return Reply(Tag.OUTCOME, 0, run.outcome)
        if epoch <= run.epoch:
            return Reply(Tag.FENCED, run.epoch)
        run.epoch, run.holder, run.released, run.outcome = epoch, "", "", outcome
        run.wake_at = run.lease = None
        return Reply(Tag.OUTCOME, 0, outcome)

    async def reopen(self, epoch: int, number: int) -> Reply:
        run = self._get()
        if run is None or run.deleted:
            return Reply(Tag.NOMETA)
        if run.reopened >= number:
            return Reply(Tag.OK, run.epoch)
        if epoch <= run.epoch:
            return Reply(Tag.FENCED, run.epoch)
        run.epoch, run.reopened, run.holder, run.released = epoch, number, "", ""
        run.cause, run.desired = "Reopened", "Running"
        run.outcome = run.wake_at = run.lease = None
        run.flight = {name: InFlight(name, entry.step, 0) for name, entry in run.flight.items()}
        return Reply(Tag.OK, epoch)

    async def set_desired(self, desired: str) -> Reply:
        run = self._get()
        if run is None:
            return Reply(Tag.NOMETA)
        run.desired = desired
        return Reply(Tag.OK)

    async def clean(self) -> None:
        self._store.runs.pop(self._key, None)


class MemoryRenewer:
    """A lease client of a MemoryRunStore."""

    def __init__(self, run: MemoryRunStore) -> None:
        self._run = run

    def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        return self._run._renew(epoch, holder, ttl_ms)

    def close(self) -> None:
        pass


def _stream_id(text: str) -> tuple[int, int]:
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)
