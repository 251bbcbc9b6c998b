"""The scripts' arguments and replies, between the contract's types and Redis's bytes and integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.store.base import Acquired, Commit, InFlight, Lease, Message, Meta, Renewed, Reply, RunFacts, Tag

# By the bytes as they come: an enum's lookup would cost more than the rest of a reply.
_TAGS = {tag.value.encode(): tag for tag in Tag}


def reply(raw: Sequence[Any]) -> Reply:
    return Reply(_TAGS[raw[0]], int(raw[1]), raw[2] if len(raw) > 2 else b"")


def acquired(raw: Sequence[Any]) -> Acquired | Reply:
    if raw[0] != b"OK":
        return reply(raw)
    return Acquired(
        seq=int(raw[1]),
        digest=raw[2].decode(),
        desired=raw[3].decode(),
        cause=raw[4].decode(),
        store_time=seconds(raw[5], raw[6]),
        restarted=bool(int(raw[7])),
    )


def renewed(raw: Sequence[Any]) -> Renewed | Reply:
    if raw[0] != b"OK":
        return reply(raw)
    return Renewed(desired=raw[2].decode(), inbox_last_id=raw[3].decode(), store_time=seconds(raw[4], raw[5]))


def facts(raw: Sequence[Any]) -> RunFacts:
    fields = {name.decode(): value for name, value in zip(raw[2][::2], raw[2][1::2], strict=True)}
    epoch, _, holder = raw[3].decode().partition(" ")
    return RunFacts(
        meta=meta(fields) if fields else None,
        lease=Lease(int(epoch), holder, max(0, int(raw[4])) / 1000) if raw[3] else None,
        inbox_pending=int(raw[5]),
        store_time=seconds(raw[6], raw[7]),
    )


def meta(fields: Mapping[str, bytes]) -> Meta:
    def text(name: str, default: str = "") -> str:
        value = fields.get(name)
        return default if value is None else value.decode()

    def number(name: str, default: int = 0) -> int:
        return int(fields.get(name) or default)

    wake_at = text("wakeAt")
    return Meta(
        epoch=number("epoch"),
        holder=text("holder"),
        seq=number("seq"),
        step_seq=number("stepSeq"),
        base=number("base", -1),
        outcome=fields.get("outcome"),
        released=text("released"),
        wake_at=float(wake_at) if wake_at else None,
        desired=text("desired", "Running"),
        cause=text("cause"),
        in_flight=tuple(
            InFlight(name[4:], step.decode(), number(f"cuts:{name[4:]}"))
            for name, step in fields.items()
            if name.startswith("inv:")
        ),
        fenced=number("fenced"),
        summary=fields.get("summary", b"{}"),
        commit_time=float(fields.get("commitTime", 0)),
        log_bytes=number("logBytes"),
        snapshot_bytes=number("snapBytes"),
        restarts=number("restarts"),
        deleted=bool(number("deleted")),
        reopened=number("reopened"),
    )


def messages(raw: Sequence[Any]) -> list[tuple[str, Message]]:
    """Of XRANGE's reply. An entry that no `send` wrote gives a message without a kind."""
    found = []
    for position, fields in raw:
        said = dict(zip(fields[::2], fields[1::2], strict=True))
        message = Message(
            id=said.get(b"id", b"").decode(errors="replace"),
            kind=said.get(b"type", b"").decode(errors="replace"),
            data=said.get(b"data", b""),
        )
        found.append((position.decode(), message))
    return found


def seconds(whole: bytes, micro: bytes) -> float:
    """Of the two halves of Redis's TIME."""
    return int(whole) + int(micro) / 1_000_000


def commit_arguments(epoch: int, holder: str, commit: Commit) -> list[bytes | str | int]:
    """ARGV of commit.lua, for a commit of a record and no more."""
    arguments: list[bytes | str | int] = [
        epoch,
        holder,
        commit.seq,
        commit.digest,
        commit.previous,
        commit.record,
        1 if commit.progress else 0,
        commit.summary,
        len(commit.flight),
    ]
    for change in commit.flight:
        arguments += change
    return arguments


def commit_more(epoch: int, commit: Commit) -> list[bytes | str | int]:
    """What follows those in ARGV of commit.lua, where there is an outcome, an acknowledgement or an event."""
    if commit.outcome is None and not commit.inbox_ack and not commit.events:
        return []
    return [
        commit.outcome or b"",
        commit.inbox_ack,
        # Monotone over takeovers, and a gap shows. Made here: Lua counts exactly to 2^53 only.
        epoch << 40 | commit.seq,
        *commit.events,
    ]
