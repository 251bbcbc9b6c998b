"""The key schema. All keys of a run share the hash tag `{uid}`: one slot of a cluster, so one script."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True, frozen=True)
class RunKeys:
    """A run's keys. `lease` is the only one that is meant to expire."""

    meta: str  # hash
    log: str  # list: the records since the snapshot
    snap: str  # string: the snapshot that stands for seq `meta.base`
    snap_next: str  # string: the next one on its way
    inbox: str  # stream: events from outside
    sent: str  # sorted set: the ids of the last ones, by when they came
    events: str  # stream, capped: what the workflow published
    lease: str  # string with PX: "<epoch> <holder>"

    @classmethod
    def of(cls, namespace: str, uid: str) -> RunKeys:
        names = (field.name.replace("_", ".") for field in fields(cls))
        return cls(*(f"perdure:{namespace}:{{{uid}}}:{name}" for name in names))

    def all(self) -> list[str]:
        return [getattr(self, field.name) for field in fields(self)]


def store_id(namespace: str) -> str:
    """Where the store keeps its random identity."""
    return f"perdure:{namespace}:store"


def channel(namespace: str) -> str:
    """Where the uid of a run that changed is published: a hint, never the truth."""
    return f"perdure:{namespace}:runs"
