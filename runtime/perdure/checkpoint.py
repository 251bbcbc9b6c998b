"""How a program's run is made durable: `workflow.run(run_id=…, store=…, checkpoint=Checkpoint(replicas=1))`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from perdure.store.sealing import Keyring, Seal, seal_of


@dataclass(slots=True, frozen=True)
class Checkpoint:
    """As `spec.checkpoint` of a WorkflowRun.

    max_bytes: of one record, and of the snapshot; over it the run ends as CheckpointTooLarge.
    replicas: how many of Redis's replicas must have a commit before anything goes on from it.
    compression: of snapshots and of records from 4 KiB on.
    encryption_keys: `ID:BASE64` entries of 32 bytes each, one a line or divided by commas. The first
    encrypts records and snapshots from now on, all of them decrypt. Results, events for readers outside
    and events from outside are not encrypted. Raises ValueError for keys that are none.
    """

    durability: Literal["Strict", "Relaxed"] = "Strict"
    max_bytes: int = 64 * 1024 * 1024
    serializer: Literal["JSON", "Pickle"] = "JSON"
    replicas: int = 0
    compression: Literal["None", "Zstd"] = "None"
    encryption_keys: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        Keyring.parse(self.encryption_keys)

    @property
    def seal(self) -> Seal:
        """Raises IncompatibleError when what it takes isn't installed."""
        return seal_of(self.compression, self.encryption_keys)
