"""What a server promises of what it acknowledged: that it stays, or what can be lost, and by what.

Pure: judged from `StoreFacts`, that is from INFO, which every service answers, and from CONFIG, which some
forbid. What neither tells is unknown, and said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from perdure.store.base import StoreFacts


@dataclass(slots=True, frozen=True)
class Doubt:
    """One way to lose what was acknowledged. known: the server's own words; else it doesn't say.

    message: what may be lost, when, and what to set. No figure in it changes while the settings don't.
    settled_by: of how many replicas a run must wait at each commit to be safe from it; None: that doesn't help.
    """

    reason: str
    message: str
    known: bool = True
    settled_by: int | None = None


@dataclass(slots=True, frozen=True)
class Durability:
    """The doubts in one: a condition's status, the worst one's reason, all messages."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


NOT_TOLD = Doubt(
    "NotTold", "the server doesn't say how it syncs to its disk (CONFIG is forbidden): ask who runs it", False
)


_WORST_FIRST = (
    "EvictsKeys",
    "AppendOnlyFileFails",
    "NoAppendOnlyFile",
    "SplitBrainPossible",
    "SyncLeftToSystem",
    "UpToOneSecond",
    "AsynchronousReplicas",
    "NotTold",
)


def judge(found: Sequence[Doubt], replicas: int = 0) -> Durability:
    """True only where nothing can be lost as far as a server can know: what its disk is, it can't.

    found: what `doubts` gave. replicas: of how many the run waits at each commit (`checkpoint.replicas`).
    """
    left = [doubt for doubt in found if doubt.settled_by is None or replicas < doubt.settled_by]
    if not left:
        return Durability("True", "EveryWriteSynced")
    worst = left[0]
    return Durability(
        "False" if worst.known else "Unknown", worst.reason, "; ".join(doubt.message for doubt in left)
    )


def doubts(facts: StoreFacts, lease_seconds: float) -> tuple[Doubt, ...]:
    """Every way to lose something, the worst first. lease_seconds: how long a silent runner keeps its run."""
    found = [*_eviction(facts), *_disk(facts), *_replicas(facts, lease_seconds)]
    return tuple(sorted(found, key=lambda doubt: (not doubt.known, _WORST_FIRST.index(doubt.reason))))


def _eviction(facts: StoreFacts) -> list[Doubt]:
    policy = facts.settings.get("maxmemory-policy") or facts.info.get("maxmemory_policy", "noeviction")
    limit = facts.settings.get("maxmemory") or facts.info.get("maxmemory", "")
    # The lease is the one key with a time to live, and its holder puts it back: volatile-* costs no state.
    if not policy.startswith("allkeys") or limit == "0":
        return []
    return [
        Doubt("EvictsKeys", f"maxmemory-policy {policy} removes runs when memory is full: set noeviction")
    ]


def _disk(facts: StoreFacts) -> list[Doubt]:
    found = []
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        found.append(
            Doubt("AppendOnlyFileFails", "the last write to the append-only file failed: look at its disk")
        )
    match facts.durable:
        case "always":
            pass
        case "everysec":
            found.append(
                Doubt(
                    "UpToOneSecond",
                    "appendfsync everysec: a crash of the machine may lose the last second or two: set always",
                )
            )
        case "no" if facts.settings.get("appendonly") == "yes":
            found.append(
                Doubt(
                    "SyncLeftToSystem",
                    "appendfsync no: a crash of the machine may lose half a minute: set always or everysec",
                )
            )
        case "no":
            # Snapshots of the memory come minutes apart; without them there is nothing at all.
            lost = "all" if facts.settings.get("save") == "" else "what came after its last snapshot"
            found.append(
                Doubt("NoAppendOnlyFile", f"appendonly no: a restart of the server loses {lost}: set yes")
            )
        case _:
            found.append(NOT_TOLD)
    return found


def _replicas(facts: StoreFacts, lease_seconds: float) -> list[Doubt]:
    replicas = int(facts.info.get("connected_slaves") or 0)
    if replicas == 0:
        return []
    lacking = Doubt(
        "AsynchronousReplicas",
        "replication is asynchronous: a failover may lose what the promoted replica had not got yet, unless"
        " checkpoint.replicas waits for all of them",
        settled_by=replicas,
    )
    needed, lag = facts.settings.get("min-replicas-to-write"), facts.settings.get("min-replicas-max-lag")
    if needed is None or lag is None:
        # INFO counts good replicas only where some are asked for; how late they may be, it doesn't say.
        bounded, known = False, "min_slaves_good_slaves" not in facts.info
    else:
        bounded, known = int(needed) > 0 and 0 < int(lag) <= lease_seconds / 2, True
    if bounded:
        return [lacking]
    # A run that waits for a replica doesn't go on beside a primary that has lost them all.
    return [
        Doubt(
            "SplitBrainPossible",
            "a primary that is cut off from its replicas goes on taking writes, which are lost when one of them"
            f" is promoted: set min-replicas-to-write 1 and min-replicas-max-lag {max(1, int(lease_seconds / 2))}",
            known,
            settled_by=1,
        ),
        lacking,
    ]
