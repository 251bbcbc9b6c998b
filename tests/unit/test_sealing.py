"""What is compressed or encrypted comes back as it was, or not at all; no key is ever told."""

import base64
import dataclasses
import os
import sys

import pytest

from perdure import Checkpoint
from perdure.errors import CheckpointCorruptError, IncompatibleError
from perdure.store import sealing
from perdure.store.records import HEADER_BYTES, frame, frame_snapshot, unframe, unframe_snapshot
from perdure.store.sealing import COMPRESS_FROM, PLAIN, Keyring, Seal, seal_of

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
LARGE = b"the same again and again " * 4000
HEXADECIMAL = "0123456789abcdef" * 4
SEALS = [PLAIN, Seal(compress=True), seal_of("None", f"old:{OLD}"), seal_of("Zstd", f"old:{OLD}")]


@pytest.mark.parametrize("seal", SEALS, ids=["plain", "zstd", "aes", "both"])
@pytest.mark.parametrize("payload", [b"", b"small", LARGE], ids=["empty", "small", "large"])
def test_what_was_sealed_comes_back(seal: Seal, payload: bytes) -> None:
    assert unframe(frame(7, 3, payload, seal), seal=seal).payload == payload
    assert unframe_snapshot(frame_snapshot(7, 3, payload, seal), seal=seal).payload == payload


def test_what_is_large_is_compressed_and_what_is_small_is_not() -> None:
    seal = Seal(compress=True)
    assert len(frame(1, 1, LARGE, seal)) < len(LARGE) / 20
    small = b"x" * (COMPRESS_FROM - 1)
    assert frame(1, 1, small, seal) == frame(1, 1, small)
    noise = os.urandom(COMPRESS_FROM)
    assert len(frame(1, 1, noise, seal)) == HEADER_BYTES + len(noise), "it would have grown"


def test_what_is_encrypted_shows_nothing_and_is_no_two_times_the_same() -> None:
    seal = seal_of("None", f"old:{OLD}")
    first, second = frame(1, 1, b"secret words", seal), frame(1, 1, b"secret words", seal)
    assert b"secret" not in first and first != second
    assert b"old" in first, "its key's name is in the record"


def test_the_first_key_writes_and_all_read() -> None:
    before = frame(1, 1, b"payload", seal_of("None", f"old:{OLD}"))
    rotated = seal_of("None", f"new:{NEW}\nold:{OLD}\n")
    assert unframe(before, seal=rotated).payload == b"payload"
    after = frame(2, 1, b"payload", rotated)
    with pytest.raises(
        IncompatibleError, match=r"record is encrypted by key 'new', .* given \(old\): add it"
    ):
        unframe(after, seal=seal_of("None", f"old:{OLD}"))
    plain = frame(3, 1, b"payload")
    assert unframe(plain, seal=rotated).payload == b"payload", "written before anything was encrypted"


def test_another_key_of_the_same_name_is_incompatible_and_damage_is_damage() -> None:
    sealed = frame(1, 1, b"payload", seal_of("None", f"k:{OLD}"))
    with pytest.raises(IncompatibleError, match="not the key by which this was written"):
        unframe(sealed, seal=seal_of("None", f"k:{NEW}"))
    with pytest.raises(IncompatibleError, match=r"which isn't among those given \(none\)"):
        unframe(sealed)
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(CheckpointCorruptError, match="checksum"):
        unframe(broken)


def test_a_record_can_not_stand_for_another_one() -> None:
    """Whoever can write to Redis but has no key can't move what is there."""
    import struct
    import zlib

    seal = seal_of("None", f"k:{OLD}")
    sealed = bytearray(frame(1, 1, b"pay nothing", seal))
    struct.pack_into(">Q", sealed, 12, 2)  # its seq, with a checksum that fits
    head, payload = bytes(sealed[: HEADER_BYTES - 4]), bytes(sealed[HEADER_BYTES:])
    moved = head + struct.pack(">I", zlib.crc32(payload, zlib.crc32(head))) + payload
    with pytest.raises(IncompatibleError, match="can't be decrypted"):
        unframe(moved, seal=seal)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no colon here", "key 1 has no id"),
        (f":{OLD}", "key 1 has no id"),
        ("k:not base64!", "key 1 is not base64"),
        (f"k:{base64.b64encode(b'short').decode()}", "key 1 has 5 bytes, AES-256 takes 32"),
        (HEXADECIMAL, "key 1 has no id"),
        (f"{HEXADECIMAL}:", "key 1 has 0 bytes"),
        (f"{HEXADECIMAL}:k", "key 1 is not base64"),
        (f"k:{OLD},k:{NEW}", "two encryption keys 'k'"),
    ],
)
def test_keys_that_are_none_say_what_to_do_and_are_not_repeated(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        Checkpoint(encryption_keys=text)
    assert not any(key in str(error.value) for key in (OLD, HEXADECIMAL, "not base64!"))


def test_no_key_shows_in_what_is_printed() -> None:
    for printed in (
        Checkpoint(encryption_keys=f"k:{OLD}"),
        seal_of("None", f"k:{OLD}"),
        Keyring.parse(f"k:{OLD}"),
    ):
        assert OLD not in repr(printed) and "\\x01" not in repr(printed)


def test_what_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = frame(1, 1, LARGE, Seal(compress=True))
    encrypted = frame(1, 1, LARGE, seal_of("None", f"k:{OLD}"))
    keys = dataclasses.replace(PLAIN)
    object.__setattr__(keys, "keyring", Keyring.parse(f"k:{OLD}"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    sealing._aes.cache_clear()
    with pytest.raises(IncompatibleError, match=r"record is compressed: install perdure\[compression\]"):
        unframe(compressed)
    with pytest.raises(IncompatibleError, match=r"record is encrypted: install perdure\[encryption\]"):
        unframe(encrypted, seal=keys)
    with pytest.raises(IncompatibleError, match=r"install perdure\[compression\]"):
        Checkpoint(compression="Zstd").seal  # noqa: B018 - it is what raises


def test_a_mark_of_a_later_version_is_not_guessed_at() -> None:
    import struct
    import zlib

    data = bytearray(frame(1, 1, b"payload"))
    data[3] |= 0x40
    head, payload = bytes(data[: HEADER_BYTES - 4]), bytes(data[HEADER_BYTES:])
    marked = head + struct.pack(">I", zlib.crc32(payload, zlib.crc32(head))) + payload
    with pytest.raises(IncompatibleError, match="marked 0x40, which this Perdure doesn't know"):
        unframe(marked)


def test_what_says_that_it_is_larger_than_anything_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = frame(1, 1, LARGE, Seal(compress=True))
    monkeypatch.setattr(sealing, "COMPRESS_TO", len(LARGE) - 1)
    with pytest.raises(CheckpointCorruptError, match=f"says that it has {len(LARGE)} bytes"):
        unframe(packed)
    assert unframe(frame(1, 1, LARGE, Seal(compress=True))).payload == LARGE
