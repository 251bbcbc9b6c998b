"""`perdure doctor`: whether runs can live in a Redis, and what it promises them, in five lines."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from perdure.cli.connect import connect
from perdure.errors import StoreError
from perdure.local.embedded import EmbeddedRedis
from perdure.program import LEASE_SECONDS
from perdure.store.base import Commit, StoreFacts, Tag
from perdure.store.durability import doubts, judge
from perdure.store.keys import channel
from perdure.store.records import digest, frame, input_record
from perdure.store.redis import RedisStore

USABLE, UNUSABLE = 0, 1
COMMITS = 50
RECORD_BYTES = 500  # about what a step that returns one small event commits
PROBE_TTL_MS = 60_000


def examine(url: str | None, namespace: str, console: Console) -> int:
    """Tell about the Redis at `url`, or about the one that `perdure run` would embed; the exit status.

    Raises UsageError when it doesn't answer, NoRedisError when there is none to embed.
    """
    if url is not None:
        return asyncio.run(_examine(url, namespace, console))
    with tempfile.TemporaryDirectory(prefix="perdure-doctor-") as folder:
        embedded = EmbeddedRedis(Path(folder))
        try:
            embedded.start()
            return asyncio.run(_examine(embedded.url, namespace, console))
        finally:
            embedded.stop()


async def _examine(url: str, namespace: str, console: Console) -> int:
    store, facts = await connect(url, namespace=namespace)
    try:
        told = {"server": _server(store, facts), "durable": _durable(facts), "memory": _memory(facts)}
        status = USABLE
        try:
            seconds = await _probe(store, namespace)
            told["rights"] = f"may do all that runs of namespace {namespace} need"
            told["speed"] = f"a commit takes {seconds * 1000:.2f} ms (median of {COMMITS}, one after another)"
        except StoreError as error:
            told["rights"] = f"runs of namespace {namespace} can't work here: {error}"
            told["speed"] = "not measured"
            status = UNUSABLE
    finally:
        await store.close()
    for name, text in told.items():
        console.print(f"{name:<9}{text}", markup=False, highlight=False, soft_wrap=True)
    return status


def _server(store: RedisStore, facts: StoreFacts) -> str:
    kind = "Valkey" if "valkey_version" in facts.info else "Redis"
    replicas = int(facts.info.get("connected_slaves") or 0)
    return f"{store.where}: {kind} {facts.version}, primary, with {replicas or 'no'} replica{'' if replicas == 1 else 's'}"


def _durable(facts: StoreFacts) -> str:
    said = judge(doubts(facts, LEASE_SECONDS))
    word = {"True": "yes", "False": "no", "Unknown": "unknown"}[said.status]
    return f"{word} ({said.reason}){': ' if said.message else ''}{said.message}"


def _memory(facts: StoreFacts) -> str:
    used, limit = int(facts.info.get("used_memory", 0)), int(facts.info.get("maxmemory", 0))
    policy = facts.info.get("maxmemory_policy", "unknown")
    of = f" of {_mebibytes(limit)}, then {policy}" if limit else ", without a limit of its own (maxmemory 0)"
    return f"{_mebibytes(used)} used{of}"


def _mebibytes(number: int) -> str:
    return f"{number / 1024**2:,.1f} MiB"


async def _probe(store: RedisStore, namespace: str) -> float:
    """Live through a run of this command's own; the median seconds of a commit. Raises StoreError."""
    uid, holder = f"doctor-{secrets.token_hex(8)}", "doctor"
    run = store.run(namespace, uid)
    try:
        await store.identity(namespace)
        await run.init(input_record({}))
        await run.acquire(1, holder, PROBE_TTL_MS)
        took = []
        for seq in range(1, COMMITS + 1):
            record = frame(seq, 1, b"x" * RECORD_BYTES)
            began = time.perf_counter()
            reply = await run.commit(1, holder, Commit(seq, digest(record), record))
            took.append(time.perf_counter() - began)
            if reply.tag is not Tag.OK:
                raise StoreError(f"commit {seq} was answered {reply.tag}")
        await run.cut(1, holder, COMMITS, frame(COMMITS, 1, b""))
        await run.load()
        await run.release(1, holder, "yield")
        async with store.link() as link:
            await link.call("PUBLISH", channel(namespace), uid)
        return statistics.median(took)
    finally:
        await run.clean()
