"""The file of `perdure export`: one run's state, its resource and its modules, with a checksum for each part.

A zip, so that any tool opens it: `export.json` says what it is, and the parts are as the store holds them.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from perdure.cli.errors import UsageError
from perdure.store.dump import Dump

FORMAT = 1
HEAD = "export.json"
_SOURCE = "source/"


@dataclass(slots=True, frozen=True)
class Archive:
    """run: the resource as JSON, where it was one of a machine. modules: its ConfigMap's, by file name."""

    namespace: str
    uid: str
    store_id: str
    exported_at: str
    dump: Dump
    run: Mapping[str, Any] | None = None
    modules: Mapping[str, str] = field(default_factory=dict)


def save(archive: Archive, path: Path) -> None:
    """Write `path`, whole or not at all, readable by its owner only. Raises UsageError if it exists."""
    dump = archive.dump
    parts: dict[str, bytes] = {
        "log": msgspec.msgpack.encode(list(dump.records)),
        "inbox": msgspec.msgpack.encode(list(dump.inbox)),
        "sent": msgspec.msgpack.encode(list(dump.sent)),
        "events": msgspec.msgpack.encode(list(dump.events)),
    }
    if dump.snapshot is not None:
        parts["snapshot"] = dump.snapshot
    parts |= {_SOURCE + name: text.encode() for name, text in archive.modules.items()}
    head = {
        "format": FORMAT,
        "perdure": version("perdure"),
        "exportedAt": archive.exported_at,
        "namespace": archive.namespace,
        "uid": archive.uid,
        "storeId": archive.store_id,
        "run": archive.run,
        "meta": {name: value.decode() for name, value in dump.fields.items()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()},
    }
    fresh = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        with (
            os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archived,
        ):
            archived.writestr(HEAD, json.dumps(head, indent=2, ensure_ascii=False))
            for name, data in parts.items():
                archived.writestr(name, data)
        os.link(fresh, path)  # unlike a rename, it fails where there is a file already
    except FileExistsError as error:
        raise UsageError(f"{path} exists: name a file that doesn't, or remove it") from error
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def load(path: Path) -> Archive:
    """Raises UsageError when `path` isn't what `save` wrote, byte by byte."""
    try:
        with zipfile.ZipFile(path) as archived:
            head = json.loads(archived.read(HEAD))
            if head["format"] != FORMAT:
                raise UsageError(
                    f"{path} has format {head['format']}, this Perdure reads {FORMAT}: use the version that wrote it"
                    f" ({head.get('perdure', 'unknown')})"
                )
            parts = {name: archived.read(name) for name in head["sha256"]}
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} isn't a whole file of perdure export: {error}") from error
    for name, told in head["sha256"].items():
        if hashlib.sha256(parts[name]).hexdigest() != told:
            raise UsageError(f"{path}: {name} isn't what was exported: its checksum differs")
    try:
        dump = Dump(
            fields={name: value.encode() for name, value in head["meta"].items()},
            snapshot=parts.get("snapshot"),
            records=msgspec.msgpack.decode(parts["log"], type=list[bytes]),
            inbox=msgspec.msgpack.decode(parts["inbox"], type=list[tuple[bytes, list[bytes]]]),
            sent=msgspec.msgpack.decode(parts["sent"], type=list[tuple[bytes, bytes]]),
            events=msgspec.msgpack.decode(parts["events"], type=list[tuple[bytes, list[bytes]]]),
        )
        modules = {
            name.removeprefix(_SOURCE): data.decode()
            for name, data in parts.items()
            if name.startswith(_SOURCE)
        }
        return Archive(
            namespace=head["namespace"],
            uid=head["uid"],
            store_id=head["storeId"],
            exported_at=head["exportedAt"],
            dump=dump,
            run=head["run"],
            modules=modules,
        )
    except (msgspec.MsgspecError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} isn't a whole file of perdure export: {error}") from error
