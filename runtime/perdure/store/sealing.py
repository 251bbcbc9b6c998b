"""What is done to a record or snapshot before it is stored: compressed, encrypted, both or nothing.

Which of it was done is in the record's own header, and so is the name of its key: one log may hold all
kinds, and a change of the settings concerns what is written from then on.
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from perdure.errors import CheckpointCorruptError, IncompatibleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ZSTD, AES_GCM = 0x10, 0x20  # in the header, above the kind
COMPRESS_FROM = 4096  # bytes; below, a commit is too quick for it to pay
COMPRESS_TO = 512 * 1024 * 1024  # bytes; as large as Redis takes a value, and as what is read may become
KEY_BYTES = 32
NONCE_BYTES = 12  # random: 2^32 records under one key are the bound, by NIST SP 800-38D
MAX_KEY_ID = 64
KEYS_VARIABLE = "PERDURE_ENCRYPTION_KEYS"

_KEY_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_KEY_ID}}}")


@dataclass(slots=True, frozen=True)
class Keyring:
    """AES-256 keys by their ids. The first one encrypts; all decrypt."""

    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """From `ID:BASE64` entries, one a line or divided by commas. Raises ValueError, which repeats no key."""
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, map(str.strip, re.split(r"[,\n]", text))), 1):
            key_id, colon, encoded = entry.partition(":")
            if not colon or not _KEY_ID.fullmatch(key_id):
                raise ValueError(
                    f"encryption key {number} has no id: write ID:BASE64, the id of letters, digits, '.', '_' or '-'"
                )
            # By its number, for what stands where the id belongs may be the key.
            try:
                key = base64.b64decode(encoded.strip(), validate=True)
            except binascii.Error:
                raise ValueError(f"encryption key {number} is not base64") from None
            if len(key) != KEY_BYTES:
                raise ValueError(
                    f"encryption key {number} has {len(key)} bytes, AES-256 takes {KEY_BYTES}: make one by"
                    " `openssl rand -base64 32`"
                )
            if key_id in keys:
                raise ValueError(f"there are two encryption keys {key_id!r}")
            keys[key_id] = key
        return cls(keys)


@dataclass(slots=True, frozen=True)
class Seal:
    """How this holder writes, and what it can read. compress: by zstd, from COMPRESS_FROM bytes on."""

    compress: bool = False
    keyring: Keyring = field(default_factory=lambda: Keyring({}))

    def __post_init__(self) -> None:
        """Raises IncompatibleError when what is asked for isn't installed here."""
        if self.compress:
            _zstandard()
        if self.keyring.keys:
            _need_aes()

    @property
    def plain(self) -> bool:
        return not self.compress and not self.keyring.keys

    def close(self, payload: bytes, head: bytes) -> tuple[int, bytes]:
        """The marks for the header, and what is stored. head: what it is bound to, of its header."""
        marks = 0
        if self.compress and COMPRESS_FROM <= len(payload) <= COMPRESS_TO:
            smaller: bytes = _zstandard().compress(payload)
            if len(smaller) < len(payload):
                marks, payload = ZSTD, smaller
        for key_id, key in self.keyring.keys.items():
            marks |= AES_GCM
            nonce, name = secrets.token_bytes(NONCE_BYTES), key_id.encode()
            bound = head + bytes([marks])
            sealed = _cipher(key).encrypt(nonce, payload, bound)
            payload = b"".join((bytes([len(name)]), name, nonce, sealed))
            break
        return marks, payload

    def open(self, marks: int, stored: bytes, head: bytes, where: str) -> bytes:
        """What `close` was given. Raises IncompatibleError, CheckpointCorruptError, both naming `where`."""
        if marks & ~(ZSTD | AES_GCM):
            raise IncompatibleError(
                f"{where} is marked {marks:#x}, which this Perdure doesn't know: run the version that wrote it"
            )
        if marks & AES_GCM:
            stored = self._decrypted(stored, head + bytes([marks]), where)
        if marks & ZSTD:
            zstandard = _zstandard(where)
            try:
                # Before: a few bytes can say that they are more than there is memory.
                if (size := zstandard.frame_content_size(stored)) > COMPRESS_TO:
                    raise CheckpointCorruptError(
                        f"{where} says that it has {size} bytes, and none of more than {COMPRESS_TO} is compressed"
                    )
                stored = zstandard.decompress(stored)
            except zstandard.ZstdError as error:
                raise CheckpointCorruptError(f"{where} can't be decompressed: {error}") from error
        return stored

    def _decrypted(self, stored: bytes, bound: bytes, where: str) -> bytes:
        size = stored[0] + 1 if stored else 0
        key_id, nonce = stored[1:size].decode(errors="replace"), stored[size : size + NONCE_BYTES]
        if not size or len(nonce) < NONCE_BYTES:
            raise CheckpointCorruptError(f"{where} is marked as encrypted and has no key's id and nonce")
        key = self.keyring.keys.get(key_id)
        if key is None:
            known = ", ".join(self.keyring.keys) or "none"
            raise IncompatibleError(
                f"{where} is encrypted by key {key_id!r}, which isn't among those given ({known}): add it behind"
                " the first, as long as something is stored by it"
            )
        _need_aes(where)
        try:
            return _cipher(key).decrypt(nonce, stored[size + NONCE_BYTES :], bound)
        except _aes()[1] as error:
            # Its checksum held, so it isn't the disk: another key of that name, or someone's own record.
            raise IncompatibleError(
                f"{where} can't be decrypted by the key {key_id!r} that was given: it is not the key by which this"
                " was written, or the record is not what was written"
            ) from error


PLAIN = Seal()


def seal_of(compression: str, encryption_keys: str) -> Seal:
    """From the settings' words: `None` or `Zstd`, and the text of a keyring. Raises ValueError, IncompatibleError."""
    return Seal(compression == "Zstd", Keyring.parse(encryption_keys))


def keys_of_environment() -> Seal:
    """To read with, by the keys in PERDURE_ENCRYPTION_KEYS. Raises ValueError, IncompatibleError."""
    return seal_of("None", os.environ.get(KEYS_VARIABLE, ""))


def _zstandard(where: str = "") -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise IncompatibleError(
            f"{where or 'what is written'} is compressed: install perdure[compression]"
        ) from error
    return zstandard


@functools.cache  # a commit is too quick for looking it up each time
def _aes() -> tuple[type[AESGCM], type[Exception]]:
    """The cipher, and what it raises for what it didn't write."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM, InvalidTag


@functools.lru_cache(maxsize=16)
def _cipher(key: bytes) -> AESGCM:
    return _aes()[0](key)


def _need_aes(where: str = "") -> None:
    try:
        _aes()
    except ImportError as error:
        raise IncompatibleError(
            f"{where or 'what is written'} is encrypted: install perdure[encryption]"
        ) from error
