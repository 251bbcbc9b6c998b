"""A record says what it is, and whether it is whole."""

from __future__ import annotations

import json

import pytest

from perdure.errors import CheckpointCorruptError, IncompatibleError
from perdure.store.base import Loaded
from perdure.store.records import (
    HEADER_BYTES,
    Record,
    check,
    digest,
    frame,
    frame_snapshot,
    input_record,
    unframe,
    unframe_snapshot,
)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 500])
def test_what_was_framed_comes_back(payload: bytes) -> None:
    assert unframe(frame(7, 3, payload)) == Record(7, 3, payload)
    assert unframe_snapshot(frame_snapshot(2**40, 2**33, payload)) == Record(2**40, 2**33, payload)


def test_every_flipped_bit_is_noticed() -> None:
    data = frame(7, 3, b"some payload")
    for index in range(len(data) * 8):
        broken = bytearray(data)
        broken[index // 8] ^= 1 << index % 8
        with pytest.raises((CheckpointCorruptError, IncompatibleError), match="the seventh"):
            unframe(bytes(broken), "the seventh")


def test_a_cut_or_longer_record_is_noticed() -> None:
    data = frame(7, 3, b"some payload")
    for broken in [data[:length] for length in range(len(data))] + [data + b"x"]:
        with pytest.raises(CheckpointCorruptError):
            unframe(broken)


def test_another_format_is_not_called_corrupt() -> None:
    data = bytearray(frame(7, 3, b"payload"))
    data[2] = 9
    with pytest.raises(IncompatibleError, match="format 9, this Perdure reads 1"):
        unframe(bytes(data))


def test_a_snapshot_is_no_record() -> None:
    with pytest.raises(CheckpointCorruptError, match="is a snapshot, not a record"):
        unframe(frame_snapshot(1, 1, b"s"))
    with pytest.raises(CheckpointCorruptError, match="is a record, not a snapshot"):
        unframe_snapshot(frame(1, 1, b"s"))


def test_the_input_is_record_0_of_epoch_1() -> None:
    record = unframe(input_record({"folder": "Grüße", "n": 9007199254740993}))
    assert (record.seq, record.epoch) == (0, 1)
    assert json.loads(record.payload) == {"input": {"folder": "Grüße", "n": 9007199254740993}}


def test_digests_tell_two_batches_apart() -> None:
    assert digest(frame(1, 1, b"a")) == digest(frame(1, 1, b"a")) != digest(frame(1, 1, b"b"))


def loaded(base: int, snapshot: bytes | None, records: list[bytes], seq: int) -> Loaded:
    return Loaded(base=base, snapshot=snapshot, records=records, seq=seq)


def log(*seqs: int, epoch: int = 1) -> list[bytes]:
    return [frame(seq, epoch, str(seq).encode()) for seq in seqs]


def test_a_whole_log_is_accepted() -> None:
    assert check(loaded(-1, None, log(0, 1), 1))[0] is None
    payload, records = check(loaded(4, frame_snapshot(4, 1, b"s"), [*log(5), *log(6, epoch=3)], 6))
    assert payload == b"s" and [record.seq for record in records] == [5, 6]


@pytest.mark.parametrize(
    ("whole", "says"),
    [
        (loaded(4, None, log(5), 5), "snapshot .* is gone"),
        (loaded(4, frame_snapshot(3, 1, b"s"), log(5), 5), "stands for seq 3, where the store has it for 4"),
        (loaded(-1, None, log(0, 2), 1), "where record 1 of the log belongs stands record 2"),
        (loaded(-1, None, log(0, 1), 2), "ends at seq 1, where the store has committed 2"),
        (loaded(-1, None, [*log(0, epoch=2), *log(1)], 1), "record 1 .* epoch 1, after one of epoch 2"),
        (loaded(-1, None, [frame(0, 1, b"x")[: HEADER_BYTES - 1]], 0), "record 0 of the log has 31 bytes"),
    ],
)
def test_what_is_wrong_with_a_log_is_said(whole: Loaded, says: str) -> None:
    with pytest.raises(CheckpointCorruptError, match=says):
        check(whole)
