"""The store in Redis or Valkey: each method one script, or one pipeline of reads."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from perdure.errors import StoreAccessError, StoreError, StoreUnavailableError
from perdure.store.base import (
    Acquired,
    Commit,
    InFlight,
    Lease,
    Loaded,
    Meta,
    Renewed,
    Reply,
    RunFacts,
    StoreFacts,
    Tag,
)
from perdure.store.keys import channel, run_keys, store_key
from perdure.store.records import FORMAT

TIMEOUT = 5.0  # seconds for a connect or a reply

# What a server answers while it can't, and will be able to later; anything else it refuses for good.
_PASSING = (
    "LOADING",
    "BUSY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
)
_ACCESS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password")


@dataclass(slots=True, frozen=True)
class Script:
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    text = (resources.files("perdure.store") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def translate(error: Exception, where: str) -> StoreError:
    """Perdure's error for one of redis-py's; `where` names the server, without its password."""
    text = str(error)
    if isinstance(error, exceptions.AuthenticationError) or text.startswith(_ACCESS):
        return StoreAccessError(
            f"Redis at {where} refuses the credentials or the command: {text}. Check the user and password in the URL, and the user's ACL"
        )
    if isinstance(error, exceptions.NoPermissionError):
        return StoreAccessError(f"Redis at {where} doesn't permit this user: {text}")
    passing = (
        exceptions.ConnectionError,
        exceptions.TimeoutError,
        exceptions.BusyLoadingError,
        exceptions.ReadOnlyError,
        exceptions.OutOfMemoryError,
        exceptions.ClusterDownError,
        exceptions.TryAgainError,
        exceptions.MasterDownError,
    )
    if isinstance(error, passing) or text.startswith(_PASSING) or " OOM " in f" {text} ":
        return StoreUnavailableError(f"Redis at {where} can't be used now: {text or type(error).__name__}")
    return StoreError(f"Redis at {where} answered: {text or type(error).__name__}")


def place(url: str) -> str:
    """The server that a URL names, without user and password."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


class RedisStore:
    """One server. Belongs to one event loop; `renewer` of a run may be used in any thread."""

    def __init__(self, url: str, client: redis.asyncio.Redis) -> None:
        self.url = url
        self.where = place(url)
        self.client = client
        self._server_run_id = ""
        self._durable = "unknown"

    @classmethod
    def from_url(cls, url: str, *, timeout: float = TIMEOUT) -> RedisStore:
        """redis://, rediss:// or unix://; connects at the first use. Raises StoreAccessError for another URL."""
        try:
            client = redis.asyncio.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=AsyncRetry(NoBackoff(), 0),  # sending again is the session's, who knows what is frozen
                max_connections=4,
            )
        except ValueError as error:
            raise StoreAccessError(
                f"not a Redis URL ({error}): use redis://, rediss:// or unix://"
            ) from error
        return cls(url, client)

    def run(self, namespace: str, uid: str) -> RedisRunStore:
        return RedisRunStore(self, namespace, uid)

    async def identity(self, namespace: str, *, create: bool = False) -> str | None:
        key = store_key(namespace)
        try:
            if create:
                await self.client.set(key, secrets.token_hex(16), nx=True)
            value = await self.client.get(key)
        except (exceptions.RedisError, OSError) as error:
            raise translate(error, self.where) from error
        return value.decode() if value is not None else None

    async def server(self) -> StoreFacts:
        try:
            info = await self.client.info()
            now = await self.client.time()
        except (exceptions.RedisError, OSError) as error:
            raise translate(error, self.where) from error
        try:
            config = await self.client.config_get("append*", "maxmemory*", "min-replicas*")
        except exceptions.ResponseError:
            config = {}  # a hosted service may forbid CONFIG: then nothing is known of it
        except (exceptions.RedisError, OSError) as error:
            raise translate(error, self.where) from error
        settings = {str(_str(k)): str(_str(v)) for k, v in config.items()}
        durable = "unknown"
        if settings:
            durable = settings.get("appendfsync", "unknown") if settings.get("appendonly") == "yes" else "no"
        self._server_run_id, self._durable = str(info["run_id"]), durable
        return StoreFacts(
            run_id=self._server_run_id,
            role=str(info.get("role", "master")),
            version=str(info.get("redis_version", "")),
            durable=durable,
            store_time=now[0] + now[1] / 1e6,
            settings=settings,
        )

    async def close(self) -> None:
        await self.client.aclose()

    async def eval(self, name: str, keys: Sequence[str], args: Iterable[Any]) -> Any:
        """Run a script by its hash, loading it where the server doesn't have it."""
        found = script(name)
        try:
            try:
                return await self.client.execute_command("EVALSHA", found.sha, len(keys), *keys, *args)
            except exceptions.NoScriptError:
                return await self.client.execute_command("EVAL", found.text, len(keys), *keys, *args)
        except (exceptions.RedisError, OSError, asyncio.IncompleteReadError) as error:
            raise translate(error, self.where) from error


class RedisRunStore:
    """One run's keys in a RedisStore."""

    def __init__(self, store: RedisStore, namespace: str, uid: str) -> None:
        self._store = store
        self._uid = uid
        self._channel = channel(namespace)
        self._keys = run_keys(namespace, uid)

    async def init(self, record: bytes, *, installation: str = "") -> Reply:
        keys = self._keys
        return _reply(await self._store.eval("init", [keys.meta, keys.log], [record, installation, FORMAT]))

    async def acquire(self, epoch: int, holder: str, ttl_ms: int) -> Acquired | Reply:
        await self._store.server()
        args = [epoch, holder, ttl_ms, self._store._server_run_id, self._store._durable]
        raw = await self._store.eval("acquire", [self._keys.meta, self._keys.lease], args)
        if raw[0] != b"OK":
            return _reply(raw)
        return Acquired(
            seq=raw[1],
            desired=raw[2].decode(),
            cause=raw[3].decode(),
            store_time=_time(raw[4], raw[5]),
            restarted=bool(raw[6]),
        )

    async def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        keys = self._keys
        return _renewed(
            await self._store.eval("renew", [keys.meta, keys.lease, keys.inbox], [epoch, holder, ttl_ms])
        )

    def renewer(self, timeout: float) -> RedisRenewer:
        keys = self._keys
        return RedisRenewer(self._store.url, [keys.meta, keys.lease, keys.inbox], timeout)

    async def commit(self, epoch: int, holder: str, commit: Commit) -> Reply:
        keys = self._keys
        flight: list[Any] = []
        for change in commit.flight:
            flight.extend(change)
        args = [
            epoch, holder, commit.seq, commit.digest, commit.record, int(commit.progress), commit.summary,
            int(commit.outcome is not None), commit.outcome or b"", commit.inbox_ack, self._channel, self._uid,
            (epoch << 40) | commit.seq, len(commit.flight), *flight, *commit.events,
        ]  # fmt: skip
        names = [keys.meta, keys.log, keys.lease, keys.inbox, keys.events]
        return _reply(await self._store.eval("commit", names, args))

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> Reply:
        keys = self._keys
        try:
            # As a plain command: a script's argument would be a copy that `maxmemory` doesn't see.
            await self._store.client.set(keys.snap_next, snapshot)
        except (exceptions.RedisError, OSError) as error:
            raise translate(error, self._store.where) from error
        names = [keys.meta, keys.log, keys.snap, keys.snap_next]
        return _reply(await self._store.eval("cut", names, [epoch, holder, seq]))

    async def release(
        self, epoch: int, holder: str, kind: str, *, wake_at: float | None = None, inbox_seen: str = ""
    ) -> Reply:
        keys = self._keys
        wake = "" if wake_at is None else repr(wake_at)
        args = [epoch, holder, kind, wake, inbox_seen, self._channel, self._uid]
        return _reply(await self._store.eval("release", [keys.meta, keys.lease, keys.inbox], args))

    async def load(self) -> Loaded | None:
        keys = self._keys
        raw = await self._store.eval("load", [keys.meta, keys.log, keys.snap], [])
        if not raw:
            return None
        return Loaded(base=int(raw[0]), snapshot=raw[1], records=list(raw[2]), seq=int(raw[3]))

    async def facts(self) -> RunFacts:
        keys = self._keys
        flat, lease, left, inbox, seconds, micros = await self._store.eval(
            "facts", [keys.meta, keys.lease, keys.inbox], []
        )
        fields = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        return RunFacts(
            meta=_meta(fields) if fields else None,
            lease=_lease(lease, left),
            inbox_pending=inbox,
            store_time=_time(seconds, micros),
        )

    async def advance(self, epoch: int, cause: str, *, deleted: bool = False) -> Reply:
        keys = self._keys
        return _reply(
            await self._store.eval("advance", [keys.meta, keys.lease], [epoch, cause, int(deleted)])
        )

    async def finish(self, epoch: int, outcome: bytes) -> Reply:
        keys = self._keys
        return _reply(await self._store.eval("finish", [keys.meta, keys.lease], [epoch, outcome]))

    async def set_desired(self, desired: str) -> Reply:
        return _reply(await self._store.eval("set_desired", [self._keys.meta], [desired]))

    async def clean(self) -> None:
        try:
            await self._store.client.delete(*self._keys)
        except (exceptions.RedisError, OSError) as error:
            raise translate(error, self._store.where) from error


class RedisRenewer:
    """A lease client: a blocking connection of its own, made anew after each failure."""

    def __init__(self, url: str, keys: list[str], timeout: float) -> None:
        self._where = place(url)
        self._keys = keys
        self._lock = threading.Lock()
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=False,
            max_connections=1,
        )

    def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        found = script("renew")
        args = [len(self._keys), *self._keys, epoch, holder, ttl_ms]
        try:
            with self._lock:
                try:
                    raw = self._client.execute_command("EVALSHA", found.sha, *args)
                except exceptions.NoScriptError:
                    raw = self._client.execute_command("EVAL", found.text, *args)
        except (exceptions.RedisError, OSError, socket.timeout) as error:  # noqa: UP041
            raise translate(error, self._where) from error
        return _renewed(raw)

    def close(self) -> None:
        self._client.close()


def _reply(raw: Any) -> Reply:
    number = raw[1] if len(raw) > 1 else 0
    return Reply(Tag(raw[0].decode()), int(number or 0), raw[2] if len(raw) > 2 else b"")


def _renewed(raw: Any) -> Renewed | Reply:
    if raw[0] != b"OK":
        return _reply(raw)
    return Renewed(desired=raw[2].decode(), inbox_last_id=raw[3].decode(), store_time=_time(raw[4], raw[5]))


def _time(seconds: bytes, micros: bytes) -> float:
    return int(seconds) + int(micros) / 1e6


def _lease(value: bytes, left_ms: int) -> Lease | None:
    if not value:
        return None
    epoch, _, holder = value.decode().partition(" ")
    return Lease(epoch=int(epoch), holder=holder, expires_in=max(0, left_ms) / 1000)


def _meta(fields: dict[str, bytes]) -> Meta:
    def text(name: str) -> str:
        return fields.get(name, b"").decode()

    def number(name: str) -> int:
        return int(fields.get(name, 0))

    flights = []
    for name, value in fields.items():
        if name.startswith("inv:"):
            cuts, _, step = value.decode().partition(" ")
            flights.append(InFlight(invocation=name[4:], step=step, cuts=int(cuts)))
    return Meta(
        epoch=number("epoch"),
        holder=text("holder"),
        seq=number("seq"),
        step_seq=number("stepSeq"),
        base=int(fields.get("base", -1)),
        outcome=fields.get("outcome"),
        released=text("released"),
        wake_at=float(fields["wakeAt"]) if fields.get("wakeAt") else None,
        desired=text("desired") or "Running",
        cause=text("cause"),
        in_flight=tuple(sorted(flights, key=lambda f: f.invocation)),
        fenced=number("fenced"),
        summary=fields.get("summary", b"{}"),
        commit_time=float(fields.get("commitTime", 0)),
        log_bytes=number("logBytes"),
        snapshot_bytes=number("snapshotBytes"),
        restarts=number("restarts"),
        deleted="deleted" in fields,
    )


def _str(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
