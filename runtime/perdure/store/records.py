"""Framing of what a run leaves in its log: a record or snapshot says what it is, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from perdure.errors import CheckpointCorruptError, IncompatibleError
from perdure.store.base import Loaded
from perdure.store.sealing import PLAIN, Seal

FORMAT = 1
RECORD, SNAPSHOT = 1, 2

_MAGIC = b"PD"
# magic, format, kind and what was done to it, epoch, seq, length of what is stored; then the CRC-32 of
# those and of what is stored, so that damage is told without a key.
_HEAD = struct.Struct(">2sBBQQQ")
_CRC = struct.Struct(">I")
HEADER_BYTES = _HEAD.size + _CRC.size
_BOUND = struct.Struct(">2sBBQQ")  # magic, format, kind, epoch, seq: what an encrypted payload is bound to
_KIND = 0x0F
_KINDS = {RECORD: "record", SNAPSHOT: "snapshot"}


@dataclass(slots=True, frozen=True)
class Record:
    """One commit of the log: `payload` is the engine's, written by the holder of `epoch`."""

    seq: int
    epoch: int
    payload: bytes


def frame(seq: int, epoch: int, payload: bytes, seal: Seal = PLAIN) -> bytes:
    """The record as the store holds it."""
    return _frame(RECORD, seq, epoch, payload, seal)


def unframe(data: bytes, where: str = "record", seal: Seal | None = PLAIN) -> Record:
    """Raises CheckpointCorruptError, and IncompatibleError for a format of another version or without its key.

    Both name `where`.
    """
    return _unframe(RECORD, data, where, seal)


def frame_snapshot(seq: int, epoch: int, payload: bytes, seal: Seal = PLAIN) -> bytes:
    """The snapshot that stands for all records up to `seq`."""
    return _frame(SNAPSHOT, seq, epoch, payload, seal)


def unframe_snapshot(data: bytes, where: str = "snapshot", seal: Seal | None = PLAIN) -> Record:
    """As `unframe`; `seq` is the last one that the snapshot stands for."""
    return _unframe(SNAPSHOT, data, where, seal)


def payload_length(data: bytes) -> int:
    """Of the record or snapshot that `data` begins with. Raises struct.error when that has no whole header."""
    return int(_HEAD.unpack_from(data)[5])


def input_record(fields: dict[str, Any], seal: Seal = PLAIN) -> bytes:
    """Record 0 of a new run: its input, framed at epoch 1."""
    return frame(
        0, 1, json.dumps({"input": fields}, ensure_ascii=False, separators=(",", ":")).encode(), seal
    )


def digest(record: bytes) -> str:
    """Tells the same batch sent twice from two batches."""
    return hashlib.blake2b(record, digest_size=16).hexdigest()


def check(loaded: Loaded, seal: Seal | None = PLAIN) -> tuple[bytes | None, list[Record]]:
    """The snapshot's payload and the records after it, when they are what was written, without a gap.

    seal: None to leave what is compressed or encrypted as it is; whether it is whole needs no key.
    Raises CheckpointCorruptError and IncompatibleError; says which record, and what is wrong with it.
    """
    payload = None
    epoch = 0
    if loaded.snapshot is None:
        if loaded.base != -1:
            raise CheckpointCorruptError(
                f"the snapshot that stands for seq 0 to {loaded.base} is gone: restore the store from a backup"
            )
    else:
        snapshot = unframe_snapshot(loaded.snapshot, seal=seal)
        if snapshot.seq != loaded.base:
            raise CheckpointCorruptError(
                f"the snapshot stands for seq {snapshot.seq}, where the store has it for {loaded.base}"
            )
        payload, epoch = snapshot.payload, snapshot.epoch
    records = []
    for seq, data in enumerate(loaded.records, loaded.base + 1):
        record = unframe(data, f"record {seq} of the log", seal)
        if record.seq != seq:
            raise CheckpointCorruptError(f"where record {seq} of the log belongs stands record {record.seq}")
        if record.epoch < epoch:
            # The fence admits none: someone wrote past it.
            raise CheckpointCorruptError(
                f"record {seq} of the log was written at epoch {record.epoch}, after one of epoch {epoch}"
            )
        epoch = record.epoch
        records.append(record)
    last = loaded.base + len(records)
    if last != loaded.seq:
        raise CheckpointCorruptError(
            f"the log ends at seq {last}, where the store has committed {loaded.seq}"
        )
    return payload, records


def _frame(kind: int, seq: int, epoch: int, payload: bytes, seal: Seal) -> bytes:
    if not seal.plain:
        marks, payload = seal.close(payload, _BOUND.pack(_MAGIC, FORMAT, kind, epoch, seq))
        kind |= marks
    head = _HEAD.pack(_MAGIC, FORMAT, kind, epoch, seq, len(payload))
    return b"".join((head, _CRC.pack(zlib.crc32(payload, zlib.crc32(head))), payload))


def _unframe(kind: int, data: bytes, where: str, seal: Seal | None) -> Record:
    if len(data) < HEADER_BYTES:
        raise CheckpointCorruptError(
            f"{where} has {len(data)} bytes, fewer than its header of {HEADER_BYTES}"
        )
    magic, version, found, epoch, seq, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise CheckpointCorruptError(f"{where} doesn't begin as Perdure's do, but with {magic!r}")
    # Before the checksum: another format may have another one.
    if version != FORMAT:
        raise IncompatibleError(
            f"{where} has format {version}, this Perdure reads {FORMAT}: run the version that wrote it"
        )
    payload = data[HEADER_BYTES:]
    if len(payload) != length:
        raise CheckpointCorruptError(
            f"{where} (seq {seq}, epoch {epoch}) has {len(payload)} bytes of {length}: it was cut short or added to"
        )
    (expected,) = _CRC.unpack_from(data, _HEAD.size)
    actual = zlib.crc32(payload, zlib.crc32(data[: _HEAD.size]))
    if actual != expected:
        raise CheckpointCorruptError(
            f"{where} (seq {seq}, epoch {epoch}) has checksum {actual:08x} where {expected:08x} was written"
        )
    marks, found = found & ~_KIND, found & _KIND
    if found != kind:
        raise CheckpointCorruptError(
            f"{where} (seq {seq}) is a {_KINDS.get(found, f'thing of kind {found}')}, not a {_KINDS[kind]}"
        )
    if marks and seal is not None:
        payload = seal.open(marks, payload, _BOUND.pack(_MAGIC, FORMAT, kind, epoch, seq), where)
    return Record(seq, epoch, payload)
