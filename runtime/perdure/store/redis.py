"""The store on a real Redis (6.2 or newer) or Valkey (7.2 or newer): scripts, and pipelines of reads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

from perdure.errors import StoreAccessError, StoreUnavailableError
from perdure.store import replies
from perdure.store.base import (
    INBOX_BYTES,
    INBOX_ENTRIES,
    Acquired,
    Commit,
    Loaded,
    Message,
    Renewed,
    Reply,
    RunFacts,
    StoreFacts,
    Tag,
)
from perdure.store.durability import doubts, judge
from perdure.store.failures import translate
from perdure.store.keys import RunKeys, channel, store_id
from perdure.store.link import Argument, Link
from perdure.store.records import HEADER_BYTES, digest
from perdure.store.scripts import script
from perdure.store.url import Address

log = logging.getLogger("perdure.store")

TIMEOUT = 5.0
LOAD_TIMEOUT = 60.0  # nobody knows before how large a run's state is
UPLOAD_TTL_MS = 3_600_000
PIECE_BYTES = 256 * 1024  # a commit waits for no more than that of a snapshot
_SETTINGS = (
    "appendonly",
    "appendfsync",
    "maxmemory",
    "maxmemory-policy",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "save",
)


def store_from_url(url: str) -> RedisStore:
    """The store at a URL of docs/connections.md's forms. Raises ValueError for anything else."""
    return RedisStore.from_url(url)


class RedisStore:
    """One server, or those that stand for one, for one event loop. Nothing is connected before the first call."""

    def __init__(self, address: Address, *, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._idle: list[Link] = []
        self._links: list[Link] = []
        self._told = ""

    @classmethod
    def from_url(cls, url: str, *, timeout: float = TIMEOUT) -> RedisStore:
        """timeout: seconds for a connection and a reply. Raises ValueError when `url` is none."""
        return cls(Address(url), timeout=timeout)

    def __repr__(self) -> str:
        return f"<RedisStore {self._address.where}>"

    @property
    def where(self) -> str:
        """The server's name for people, without its secrets."""
        return self._address.where

    def run(self, namespace: str, uid: str) -> RedisRunStore:
        return RedisRunStore(self, self._address, namespace, uid)

    async def identity(self, namespace: str, *, create: bool = False) -> str | None:
        key = store_id(namespace)
        async with self.link() as link:
            if create:
                await link.call("SET", key, secrets.token_hex(16), "NX")
            found = await link.call("GET", key)
        return None if found is None else str(found.decode())

    async def server(self, namespace: str) -> StoreFacts:
        async with self.link() as link:
            return await server_facts(link, self._address.where, store_id(namespace))

    def tell(self, facts: StoreFacts, lease_seconds: float) -> None:
        """Log what this store may lose, when it is first seen and when that changed."""
        said = judge(doubts(facts, lease_seconds))
        if said.reason == self._told:
            return
        self._told = said.reason
        if said.status != "True":
            log.warning("%s: %s (%s)", self.where, said.message, said.reason)

    async def close(self) -> None:
        links, self._links, self._idle = self._links, [], []
        for link in links:
            await link.close()

    def new_link(self, *, shared: bool = False) -> Link:
        """A connection for one user; `close` closes it. shared: one for each node of a cluster."""
        link = Link(self._address, self._timeout, shared=shared)
        self._links.append(link)
        return link

    async def end_link(self, link: Link) -> None:
        self._links.remove(link)
        await link.close()

    @contextlib.asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A connection nobody else uses meanwhile: a large read holds no small one up."""
        link = self._idle.pop() if self._idle else self.new_link(shared=True)
        try:
            yield link
        finally:
            self._idle.append(link)


class RedisRunStore:
    """One run's keys. Its holder has a connection of its own, from `acquire` to the run's end or release.

    Who holds nothing has shared ones.
    """

    def __init__(self, store: RedisStore, address: Address, namespace: str, uid: str) -> None:
        self._store = store
        self._address = address
        self._uid = uid
        self._channel = channel(namespace)
        self._keys = keys = RunKeys.of(namespace, uid)
        self._record_keys = [keys.meta, keys.log]
        self._commit_keys = [*self._record_keys, keys.lease, keys.inbox, keys.events]
        self._commit_script = script("commit")
        self._own: Link | None = None
        self._acquired_over: int | None = 0  # how many connections `_own` had made when the run was acquired

    def _held(self) -> Link:
        if self._own is None:
            self._own = self._store.new_link()
        return self._own

    async def _let_go(self) -> None:
        own, self._own = self._own, None
        self._acquired_over = None  # nothing is written any more: the store says so over any connection
        if own is not None:
            await self._store.end_link(own)

    @contextlib.asynccontextmanager
    async def _link(self) -> AsyncIterator[Link]:
        if self._own is not None:
            yield self._own
        else:
            async with self._store.link() as link:
                yield link

    async def server(self) -> StoreFacts:
        async with self._link() as link:
            return await server_facts(link, self._address.where, self._keys.meta)

    async def _call(self, name: str, keys: Sequence[str], *arguments: Argument) -> Reply:
        async with self._link() as link:
            return replies.reply(await link.script(script(name), keys, arguments))

    async def init(self, record: bytes, *, installation: str = "") -> Reply:
        keys = self._keys
        async with self._link() as link:
            # From the first on: what is lost before anybody has acquired the run is told, too.
            facts = await server_facts(link, self._address.where, keys.meta)
            raw = await link.script(
                script("init"),
                [keys.meta, keys.log, keys.snap],
                [record, digest(record), installation, facts.run_id],
            )
            return replies.reply(raw)

    async def acquire(self, epoch: int, holder: str, ttl_ms: int) -> Acquired | Reply:
        link = self._held()
        facts = await server_facts(link, self._address.where, self._keys.meta)
        self._store.tell(facts, ttl_ms / 1000)
        over = link.connections
        raw, _ = await link.script_on_replicas(
            script("acquire"),
            [self._keys.meta, self._keys.lease],
            # What a promoted replica hadn't got is nowhere on its disk, however often it syncs.
            [epoch, holder, ttl_ms, facts.run_id, int(facts.durable == "always" and not facts.promoted)],
            0,
            since=over,  # over another connection it may be another server than `facts` tell of
        )
        self._acquired_over = over
        return replies.acquired(raw)

    async def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        async with self._link() as link:
            return replies.renewed(
                await link.script(script("renew"), _renew_keys(self._keys), [epoch, holder, ttl_ms])
            )

    def renewer(self, timeout: float) -> RedisRenewer:
        return RedisRenewer(self._address, self._keys, timeout)

    async def commit(self, epoch: int, holder: str, commit: Commit, *, replicas: int = 0) -> Reply:
        arguments = replies.commit_arguments(epoch, holder, commit)
        more = replies.commit_more(epoch, commit)
        raw, reached = await self._held().script_on_replicas(
            self._commit_script,
            self._commit_keys if more else self._record_keys,
            arguments + more if more else arguments,
            replicas,
            size=len(commit.record),
            since=self._acquired_over,
        )
        answer = replies.reply(raw)
        if answer.ok and reached < replicas:
            raise StoreUnavailableError(
                f"{self._address.where} has the commit, and {reached} of its replicas, where checkpoint.replicas is"
                f" {replicas}: bring them back, or lower that"
            )
        if commit.outcome is not None:
            await self._let_go()
        return answer

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> Reply:
        keys = self._keys
        async with self._link() as link:
            # In pieces, between which the commits of this connection go. Not through a script, which would
            # hold a second copy outside of maxmemory's sight.
            await link.call("SET", keys.snap_next, snapshot[:PIECE_BYTES], "PX", UPLOAD_TTL_MS)
            for start in range(PIECE_BYTES, len(snapshot), PIECE_BYTES):
                piece = snapshot[start : start + PIECE_BYTES]
                if await link.call("APPEND", keys.snap_next, piece) == len(piece):
                    # The rest is gone, as of a run that was removed: this would stay for ever.
                    await link.call("UNLINK", keys.snap_next)
                    break
            return replies.reply(
                await link.script(
                    script("cut"),
                    [keys.meta, keys.log, keys.snap, keys.snap_next],
                    [epoch, holder, seq, snapshot[:HEADER_BYTES], len(snapshot)],
                )
            )

    async def release(
        self, epoch: int, holder: str, kind: str, *, wake_at: float | None = None, inbox_seen: str = ""
    ) -> Reply:
        keys = self._keys
        raw = await self._held().script(
            script("release"),
            [keys.meta, keys.lease, keys.inbox],
            [
                epoch,
                holder,
                kind,
                "" if wake_at is None else repr(wake_at),
                inbox_seen,
                self._uid,
                self._channel,
            ],
        )
        reply = replies.reply(raw)
        if reply.tag is not Tag.INBOX:
            await self._let_go()
        return reply

    async def send(self, message: Message) -> Reply:
        keys = self._keys
        async with self._link() as link:
            return replies.reply(
                await link.script(
                    script("send"),
                    [keys.meta, keys.inbox, keys.sent],
                    [
                        message.id,
                        message.kind,
                        message.data,
                        INBOX_ENTRIES,
                        INBOX_BYTES,
                        self._uid,
                        self._channel,
                    ],
                    size=len(message.data),
                )
            )

    async def inbox(self, after: str, count: int) -> list[tuple[str, Message]]:
        start = f"({after}" if after else "-"
        async with self._link() as link:
            return replies.messages(
                await link.call("XRANGE", self._keys.inbox, start, "+", "COUNT", count, timeout=LOAD_TIMEOUT)
            )

    async def load(self) -> Loaded | None:
        keys = self._keys
        async with self._link() as link:
            answers = await link.pipeline(
                [
                    ("MULTI",),
                    ("HMGET", keys.meta, "epoch", "base", "seq"),
                    ("GET", keys.snap),
                    ("LRANGE", keys.log, 0, -1),
                    ("EXEC",),
                ],
                key=keys.meta,
                timeout=LOAD_TIMEOUT,
            )
        for answer in answers:
            if isinstance(answer, Exception):
                raise translate(answer, self._address.where) from answer
        (epoch, base, seq), snapshot, records = answers[-1]
        if epoch is None:
            return None
        return Loaded(base=int(base), snapshot=snapshot, records=records, seq=int(seq))

    async def facts(self) -> RunFacts:
        keys = self._keys
        async with self._link() as link:
            return replies.facts(await link.script(script("facts"), [keys.meta, keys.lease, keys.inbox], []))

    async def advance(self, epoch: int, cause: str, *, deleted: bool = False) -> Reply:
        return await self._call(
            "advance", [self._keys.meta, self._keys.lease], epoch, cause, 1 if deleted else 0
        )

    async def finish(self, epoch: int, outcome: bytes) -> Reply:
        return await self._call(
            "finish", [self._keys.meta, self._keys.lease], epoch, outcome, self._uid, self._channel
        )

    async def reopen(self, epoch: int, number: int) -> Reply:
        return await self._call(
            "reopen", [self._keys.meta, self._keys.lease], epoch, number, self._uid, self._channel
        )

    async def set_desired(self, desired: str) -> Reply:
        return await self._call("set_desired", [self._keys.meta], desired)

    async def clean(self) -> None:
        async with self._link() as link:
            await link.call("UNLINK", *self._keys.all())


class RedisRenewer:
    """Blocking, for the lease's thread: nothing of it waits for the program's event loop."""

    def __init__(self, address: Address, keys: RunKeys, timeout: float) -> None:
        self._keys = _renew_keys(keys)
        self._link = Link(address, timeout)
        self._loop = asyncio.new_event_loop()

    def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        return self._loop.run_until_complete(self._renew(epoch, holder, ttl_ms))

    async def _renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        # This loop stood still since the last renewal: a connection that was closed meanwhile is seen to
        # be before it is used, not after.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return replies.renewed(await self._link.script(script("renew"), self._keys, [epoch, holder, ttl_ms]))

    def close(self) -> None:
        self._loop.run_until_complete(self._link.close())
        self._loop.close()


def _renew_keys(keys: RunKeys) -> list[str]:
    return [keys.meta, keys.lease, keys.inbox]


async def server_facts(link: Link, where: str, key: str) -> StoreFacts:
    """What the server that has `key` says of itself, over one connection: a restart between would break that."""
    # The first sends the whole to the right node of a cluster.
    found, time, *answers = await link.pipeline(
        [
            ("EXISTS", key),
            ("TIME",),
            ("INFO",),
            ("ROLE",),
            *(("CONFIG", "GET", name) for name in _SETTINGS),
        ],
        key=key,
    )
    if isinstance(time, Exception):
        raise translate(time, where) from time
    _, info, role, *settings = (None if _forbidden(answer, where) else answer for answer in (found, *answers))
    said: dict[str, str] = dict(
        line.split(":", 1) for line in (info or b"").decode(errors="replace").splitlines() if ":" in line
    )
    known: dict[str, str] = {}
    for answer in settings:
        if answer is not None:
            known |= {answer[i].decode(): answer[i + 1].decode() for i in range(0, len(answer), 2)}
    facts = StoreFacts(
        run_id=said.get("run_id", ""),
        # A replica would refuse the next write anyway.
        role=said.get("role") or (role[0].decode() if role else "master"),
        version=said.get("valkey_version") or said.get("redis_version", ""),
        durable=_durable(said, known),
        store_time=replies.seconds(time[0], time[1]),
        promoted=said.get("master_replid2", "").strip("0") != "",
        settings=known,
        info=said,
    )
    if facts.role != "master":
        link.leave(key)
    return facts


def _forbidden(answer: Any, where: str) -> bool:
    """Whether the service doesn't tell this: what it doesn't is unknown. Raises what else is wrong."""
    if not isinstance(answer, Exception):
        return False
    failure = translate(answer, where)
    if isinstance(failure, StoreAccessError) or "unknown command" in str(answer).lower():
        return True
    raise failure from answer


def _durable(said: dict[str, str], known: dict[str, str]) -> str:
    if known.get("appendonly", "") == "no" or said.get("aof_enabled") == "0":
        return "no"
    return known.get("appendfsync", "unknown") if known.get("appendonly") == "yes" else "unknown"
