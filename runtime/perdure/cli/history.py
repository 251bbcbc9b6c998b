"""`perdure history`: what happened in a run, as a table for people or as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import typer

from perdure.cli.place import find
from perdure.cli.table import print_table
from perdure.control.outcome import decode_outcome
from perdure.control.times import to_rfc3339
from perdure.history import Entry, read
from perdure.store.base import Meta
from perdure.store.dump import Dump
from perdure.store.sealing import keys_of_environment

COLUMNS = ("seq", "epoch", "time", "bytes", "what", "step", "invocation", "attempt", "detail")
NUMBERS = ("seq", "epoch", "bytes", "invocation", "attempt")


async def show(name: str, root: Path, redis_url: str | None, namespace: str, *, as_json: bool) -> None:
    """Raises UsageError, LocalError, CheckpointCorruptError, IncompatibleError."""
    async with find(name, root, redis_url, namespace) as place:
        dump = await place.dump()
    entries = read(dump.meta, dump.loaded, keys_of_environment())
    if as_json:
        document = {"name": name, "namespace": place.namespace, "uid": place.uid, **_summary(dump)}
        document["entries"] = [_as_json(entry) for entry in entries]
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    print_table(COLUMNS, [_row(entry) for entry in entries], numbers=NUMBERS)
    for line in _last_words(dump.meta):
        typer.echo(line)


def _row(entry: Entry) -> tuple[str, ...]:
    def text(value: Any) -> str:
        return "" if value is None else str(value)

    return (
        str(entry.seq),
        str(entry.epoch),
        f"{to_rfc3339(entry.time)[:23]}Z" if entry.time is not None else "",
        str(entry.bytes),
        entry.what,
        f"{entry.child}/{entry.step}" if entry.child and entry.step else entry.child or entry.step,
        text(entry.invocation),
        text(entry.attempt),
        " ".join(entry.detail.split()),
    )


def _as_json(entry: Entry) -> dict[str, Any]:
    fields = dataclasses.asdict(entry)
    if entry.time is not None:
        fields["time"] = to_rfc3339(entry.time)
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _summary(dump: Dump) -> dict[str, Any]:
    meta = dump.meta
    outcome = decode_outcome(meta.outcome) if meta.outcome is not None else None
    return {
        "seq": meta.seq,
        "epoch": meta.epoch,
        "base": meta.base,
        "holder": meta.holder,
        "released": meta.released,
        "bytes": {"snapshot": len(dump.snapshot or b""), "log": sum(map(len, dump.records))},
        "outcome": None if outcome is None else {"reason": outcome.reason, "message": outcome.message},
        "inFlight": [dataclasses.asdict(flight) for flight in meta.in_flight] if outcome is None else [],
    }


def _last_words(meta: Meta) -> list[str]:
    if meta.outcome is not None:
        outcome = decode_outcome(meta.outcome)
        return [f"ended: {outcome.reason}{': ' if outcome.message else ''}{outcome.message}"]
    lines = [
        f"in flight: {flight.step}, invocation {flight.invocation}"
        + (f", cut off {flight.cuts} times" if flight.cuts else "")
        for flight in meta.in_flight
    ]
    return lines or ["nothing is in flight"]
