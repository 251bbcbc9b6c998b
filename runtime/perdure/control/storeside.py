"""The store's side of observing and applying, shared by laptop and cluster.

    view = await observe_store(store, watch, namespace=, uid=, expected_id=status.store_id,
                               lease_seconds=spec.recovery.lease_seconds, clock=, may_create_id=)
    reply = await apply_to_store(action, run_store, record0=, installation=)
    if not goes_on(action, reply): ...  # stop applying this decision and look again

One `StoreWatch` for each store that an observer talks to; keep it as long as the process lives.
"""

from __future__ import annotations

from perdure.control.actions import Action, AdvanceEpoch, CleanStore, Finish, InitStore, SetDesired
from perdure.control.observation import StoreView
from perdure.control.outcome import Outcome, encode_outcome
from perdure.control.storewatch import Clock, StoreWatch
from perdure.errors import StoreAccessError, StoreUnavailableError
from perdure.store.base import Reply, RunStore, Store, Tag
from perdure.store.durability import doubts

StoreAction = InitStore | AdvanceEpoch | Finish | SetDesired | CleanStore

__all__ = ["Clock", "StoreAction", "StoreWatch", "apply_to_store", "goes_on", "observe_store"]


async def observe_store(
    store: Store,
    watch: StoreWatch,
    *,
    namespace: str,
    uid: str,
    expected_id: str,
    lease_seconds: float,
    clock: Clock,
    may_create_id: bool = True,
) -> StoreView:
    """One look at a run's store; raises nothing for a store that is away or refuses.

    expected_id: `status.storeId`, "" while the run has none. may_create_id: False while a live run of
    the same store claims an identity that the store doesn't have (it was wiped: say so, don't repair).
    """
    try:
        # The run first: a server that restarts in between is then seen to be another one, and its
        # leases, which may have run out while it was away, aren't judged.
        keys = store.run(namespace, uid)
        facts = await keys.facts()
        server = await keys.server()
        watch.answered(uid, server, clock())
        create = may_create_id and not expected_id and server.role == "master"
        identity = await store.identity(namespace, create=create)
    except (StoreUnavailableError, StoreAccessError) as error:
        watch.failed(clock())
        return watch.unreachable(str(error), clock())
    if server.role != "master":
        return watch.unreachable(f"the store that answers is a replica ({server.role})", clock())
    return watch.view(
        uid,
        facts,
        identity=identity or "",
        expected_id=expected_id,
        doubts=doubts(server, lease_seconds),
        lease_seconds=lease_seconds,
        now=clock(),
    )


async def apply_to_store(action: Action, run: RunStore, *, record0: bytes, installation: str) -> Reply | None:
    """Carry `action` out on the run's keys; None for one that isn't the store's.

    record0: the framed record that holds the input, for InitStore. Raises what RunStore's methods do.
    """
    match action:
        case InitStore():
            return await run.init(record0, installation=installation)
        case AdvanceEpoch(epoch=epoch, cause=cause, deleted=deleted):
            return await run.advance(epoch, cause, deleted=deleted)
        case Finish(epoch=epoch, reason=reason, message=message, failure=failure):
            return await run.finish(epoch, encode_outcome(Outcome(reason, message, failure=failure)))
        case SetDesired(desired=desired):
            return await run.set_desired(desired)
        case CleanStore():
            await run.clean()
            return Reply(Tag.OK)
        case _:
            return None


def goes_on(action: Action, reply: Reply | None) -> bool:
    """Whether the rest of the decision still holds after the store's `reply` to `action`."""
    match action:
        case AdvanceEpoch(deleted=True) | CleanStore() | SetDesired() | InitStore():
            return True
        case AdvanceEpoch(epoch=epoch) if reply is not None:
            # A higher epoch is another operator's takeover: its pod is the one to come.
            return reply.ok and reply.number == epoch
        case Finish() if reply is not None:
            return reply.tag is Tag.OUTCOME or reply.ok
        case _:
            return True
