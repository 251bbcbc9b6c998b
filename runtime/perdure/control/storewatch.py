"""How far one store's word can be trusted now: grace after trouble, and the guard against a crowd.

Leases are judged by what the store says, so a store that restarted, changed its role or its clock,
or was not seen for a while must give every runner one lease's time before anybody is called silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from perdure.control.observation import StoreState, StoreView
from perdure.store.base import RunFacts, StoreFacts
from perdure.store.durability import Doubt

CLOCK_STEP = 1.0
CROWD = 5


@dataclass(slots=True, frozen=True)
class Now:
    """wall: Unix seconds. mono: seconds of a clock that nobody sets."""

    wall: float
    mono: float


Clock = Callable[[], Now]


def system_clock() -> Now:
    return Now(time.time(), time.monotonic())


@dataclass(slots=True)
class _Holder:
    """lease_seconds: the run's own. silent_since: None while its lease is alive."""

    lease_seconds: float
    silent_since: float | None = None
    excused: bool = False


@dataclass(slots=True, frozen=True)
class _Server:
    """offset: of its clock to ours."""

    run_id: str
    role: str
    offset: float

    def differs(self, other: _Server) -> bool:
        """Another process, another role, or a clock that was set."""
        same = (self.run_id, self.role) == (other.run_id, other.role)
        return not same or abs(self.offset - other.offset) > CLOCK_STEP


class StoreWatch:
    """What one observer knows of one store.

    trouble_at (wall) is when the latest trouble was over, or now while it lasts.
    """

    def __init__(self, now: Now) -> None:
        # A new observer has not seen what went before: that is a trouble of its own.
        self._trouble = now
        self._down_since: float | None = None
        # By run: those of a cluster are on several servers, and a failover puts them on others.
        self._servers: dict[str, _Server] = {}
        self._holders: dict[str, _Holder] = {}
        self._crowd_until = float("-inf")

    def failed(self, now: Now) -> None:
        """The store didn't answer, or refused."""
        if self._down_since is None:
            self._down_since = now.wall
        self._trouble = now

    def answered(self, uid: str, server: StoreFacts, now: Now) -> None:
        """The server of run `uid` answered with `server`; compare it with what it was."""
        was, found = self._servers.get(uid), _Server(server.run_id, server.role, server.store_time - now.mono)
        if self._down_since is not None or (was is not None and found.differs(was)):
            self._trouble = now
        self._down_since = None
        self._servers[uid] = found

    def forget(self, uid: str) -> None:
        """The run is over or deleted: its lease doesn't count any more."""
        self._holders.pop(uid, None)
        self._servers.pop(uid, None)

    def unreachable(self, message: str, now: Now) -> StoreView:
        since = now.wall if self._down_since is None else self._down_since
        return StoreView(StoreState.UNREACHABLE, until=since, trouble_until=now.wall, message=message)

    def view(
        self,
        uid: str,
        facts: RunFacts,
        *,
        identity: str,
        expected_id: str,
        doubts: tuple[Doubt, ...],
        lease_seconds: float,
        now: Now,
    ) -> StoreView:
        """`facts` with the store's state around them."""
        if identity and expected_id and identity != expected_id:
            return StoreView(
                StoreState.WRONG,
                trouble_until=now.wall,
                message=f"the store answers as {identity}, the run's state is in {expected_id}",
                store_id=identity,
            )
        left = self._trouble.mono + lease_seconds - now.mono
        self._count(uid, facts, lease_seconds, now)
        return StoreView(
            StoreState.GRACE if left > 0 else StoreState.READY,
            until=now.wall + left if left > 0 else 0.0,
            trouble_until=self._trouble.wall,
            store_id=identity,
            doubts=doubts,
            meta=facts.meta,
            lease=facts.lease,
            inbox_pending=facts.inbox_pending,
            store_now=facts.store_time,
            crowd=now.mono < self._crowd_until,
        )

    def _count(self, uid: str, facts: RunFacts, lease_seconds: float, now: Now) -> None:
        """Hold judgement one lease longer when most leases fall silent together: blame the store first."""
        meta, lease = facts.meta, facts.lease
        if meta is None or meta.outcome is not None or meta.released or not meta.holder:
            self._holders.pop(uid, None)
            return
        alive = lease is not None and lease.expires_in > 0 and lease.holder == meta.holder
        holder = self._holders.setdefault(uid, _Holder(lease_seconds))
        if alive:
            holder.silent_since, holder.excused = None, False
            return
        if holder.silent_since is None:
            holder.silent_since = now.mono
        silent = [
            one
            for one in self._holders.values()
            if one.silent_since is not None
            and not one.excused
            and now.mono - one.silent_since <= one.lease_seconds
        ]
        if len(silent) >= CROWD and 2 * len(silent) > len(self._holders):
            self._crowd_until = now.mono + max(one.lease_seconds for one in silent)
            for one in silent:
                one.excused = True
