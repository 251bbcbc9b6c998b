"""All that a store holds of one run, read at one moment and written where there is nothing yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from perdure.store.base import Loaded, Meta
from perdure.store.failures import translate
from perdure.store.keys import RunKeys
from perdure.store.link import BYTES_PER_SECOND, Argument, Link
from perdure.store.redis import LOAD_TIMEOUT, RedisStore
from perdure.store.replies import meta

# An entry of a stream: its id, then names and values in turn.
Entry = tuple[bytes, Sequence[bytes]]
PUSHED_AT_ONCE = 1000


@dataclass(slots=True, frozen=True)
class Dump:
    """A run's keys but for its lease, which is of a process, not of the state.

    fields: meta's. sent: ids of events that came in, each with its score.
    """

    fields: Mapping[str, bytes]
    snapshot: bytes | None
    records: Sequence[bytes]
    inbox: Sequence[Entry] = ()
    sent: Sequence[tuple[bytes, bytes]] = ()
    events: Sequence[Entry] = ()

    @property
    def meta(self) -> Meta:
        return meta(self.fields)

    @property
    def loaded(self) -> Loaded:
        known = self.meta
        return Loaded(known.seq, known.base, self.snapshot, list(self.records))


async def read(store: RedisStore, namespace: str, uid: str) -> Dump | None:
    """The run as it is between two commits; None when the store doesn't know it. Raises StoreError."""
    keys = RunKeys.of(namespace, uid)
    async with store.link() as link:
        answers = await _at_once(
            link,
            store.where,
            keys.meta,
            [
                ("HGETALL", keys.meta),
                ("GET", keys.snap),
                ("LRANGE", keys.log, 0, -1),
                ("XRANGE", keys.inbox, "-", "+"),
                ("ZRANGE", keys.sent, 0, -1, "WITHSCORES"),
                ("XRANGE", keys.events, "-", "+"),
            ],
            LOAD_TIMEOUT,
        )
    assert answers is not None  # nothing is watched
    raw, snapshot, records, inbox, sent, events = answers
    fields = {name.decode(): value for name, value in _pairs(raw)}
    return Dump(fields, snapshot, records, inbox, _pairs(sent), events) if fields else None


async def write(store: RedisStore, namespace: str, uid: str, dump: Dump) -> bool:
    """Make the run there as `dump` has it, whole or not at all; False when there is anything of it already.

    Raises StoreError.
    """
    keys = RunKeys.of(namespace, uid)
    commands: list[Sequence[Argument]] = []
    # What grows goes first: a full server refuses these, and with them the whole.
    for start in range(0, len(dump.records), PUSHED_AT_ONCE):
        commands.append(("RPUSH", keys.log, *dump.records[start : start + PUSHED_AT_ONCE]))
    if dump.snapshot is not None:
        commands.append(("SET", keys.snap, dump.snapshot))
    for key, entries in ((keys.inbox, dump.inbox), (keys.events, dump.events)):
        commands += [("XADD", key, identity, *fields) for identity, fields in entries]
    if dump.sent:
        commands.append(("ZADD", keys.sent, *(part for name, score in dump.sent for part in (score, name))))
    commands.append(("HSET", keys.meta, *(part for pair in dump.fields.items() for part in pair)))
    size = len(dump.snapshot or b"") + sum(map(len, dump.records))
    async with store.link() as link:
        await link.call("WATCH", *keys.all())
        if await link.call("EXISTS", *keys.all()):
            await link.call("UNWATCH")
            return False
        done = await _at_once(link, store.where, keys.meta, commands, LOAD_TIMEOUT + size / BYTES_PER_SECOND)
    return done is not None


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


async def _at_once(
    link: Link, where: str, key: str, commands: Sequence[Sequence[Argument]], timeout: float
) -> list[Any] | None:
    """Their answers in order; None when a watched key changed."""
    answers = await link.pipeline([("MULTI",), *commands, ("EXEC",)], key=key, timeout=timeout)
    executed = answers[-1]
    inner = executed if isinstance(executed, list) else []
    for answer in [*answers[:-1], executed, *inner]:
        if isinstance(answer, RedisError):  # the first says why; that the rest was refused comes after
            raise translate(answer, where) from answer
    return executed  # type: ignore[no-any-return]
