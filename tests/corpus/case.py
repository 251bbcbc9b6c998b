"""One run on file: `log` (its records one after the other), `snapshot` if it has one, `about.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.store.base import Loaded
from perdure.store.dump import Dump
from perdure.store.records import HEADER_BYTES, digest, payload_length
from perdure.store.sealing import Seal, seal_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """answers: events from outside that the rest of the run needs. result: what it then ends with."""

    name: str
    flow: str
    serializer: str
    time: float
    ended: bool
    answers: list[list[Any]]
    result: Any
    loaded: Loaded
    compression: str = "None"
    encryption_keys: str = ""  # of no other use

    @property
    def seal(self) -> Seal:
        return seal_of(self.compression, self.encryption_keys)

    def write(self) -> None:
        folder = HERE / self.name
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "flow": self.flow,
            "serializer": self.serializer,
            "time": self.time,
            "ended": self.ended,
            "seq": self.loaded.seq,
            "base": self.loaded.base,
            "answers": self.answers,
            "result": self.result,
        }
        if not self.seal.plain:
            about |= {"compression": self.compression, "encryption_keys": self.encryption_keys}
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
        (folder / "log").write_bytes(b"".join(self.loaded.records))
        if self.loaded.snapshot is not None:
            (folder / "snapshot").write_bytes(self.loaded.snapshot)

    @classmethod
    def read(cls, folder: Path) -> Case:
        about = json.loads((folder / "about.json").read_text())
        snapshot = folder / "snapshot"
        loaded = Loaded(
            seq=about.pop("seq"),
            base=about.pop("base"),
            snapshot=snapshot.read_bytes() if snapshot.exists() else None,
            records=list(_records((folder / "log").read_bytes())),
        )
        return cls(name=str(folder.relative_to(HERE)), loaded=loaded, **about)

    def dump(self, **fields: bytes) -> Dump:
        """As a store holds it, at epoch 1, its holder gone."""
        loaded = self.loaded
        last = loaded.records[-1] if loaded.records else loaded.snapshot
        meta = {
            "format": b"1",
            "epoch": b"1",
            "holder": b"",
            "seq": str(loaded.seq).encode(),
            "base": str(loaded.base).encode(),
            "stepSeq": b"0",
            "digest": digest(last or b"").encode(),
            "desired": b"Running",
        }
        if self.ended:
            meta["outcome"] = b'{"reason":"StepFailed"}'
        return Dump({**meta, **fields}, loaded.snapshot, loaded.records)


def cases() -> list[Case]:
    return [Case.read(about.parent) for about in sorted(HERE.glob("*/*/about.json"))]


def _records(log: bytes) -> Iterator[bytes]:
    while log:
        size = HEADER_BYTES + payload_length(log)
        yield log[:size]
        log = log[size:]
