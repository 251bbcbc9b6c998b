"""Where a run's state is: in the folder of a run of this machine, or in a Redis that the user names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from perdure.cli.connect import connect
from perdure.cli.errors import UsageError
from perdure.control.api import WorkflowRun
from perdure.local.embedded import EmbeddedRedis
from perdure.local.errors import AlreadyRunningError
from perdure.local.state import NAMESPACE, RunFolder, names
from perdure.store.dump import Dump, read
from perdure.store.redis import RedisStore


@dataclass(slots=True, frozen=True)
class Place:
    """run: the resource, where it is one of this machine's; folder: its folder then."""

    store: RedisStore
    namespace: str
    uid: str
    run: WorkflowRun | None = None
    folder: RunFolder | None = None

    async def dump(self) -> Dump:
        """The run's state at one moment. Raises UsageError when there is none."""
        found = await read(self.store, self.namespace, self.uid)
        if found is None:
            raise UsageError(
                f"{self.store.where} has no run {self.uid} in namespace {self.namespace}; in a cluster the uid is what"
                " kubectl get wfr NAME -o jsonpath={.metadata.uid} prints, in a program the run_id"
            )
        return found


@contextlib.asynccontextmanager
async def find(name: str, root: Path, redis_url: str | None, namespace: str) -> AsyncIterator[Place]:
    """The place of the run that `name` names: one of this machine's under `root`, else by its uid.

    An embedded Redis that nobody runs now is started for as long as this lasts. Raises UsageError,
    LocalError.
    """
    known = namespace == NAMESPACE and name in names(root)
    if not known and redis_url is None:
        there = ", ".join(names(root)) or "none"
        raise UsageError(
            f"there is no run {name!r} under {root} (there: {there}); for one in a Redis of yours add --redis URL"
        )
    folder = RunFolder(root, name) if known else None
    run = folder.read() if folder is not None else None
    uid = run.metadata.uid if run is not None else name
    if folder is not None:
        folder.check_store(redis_url is not None)
    async with _store(folder, redis_url) as store:
        yield Place(store, namespace, uid, run, folder)


@contextlib.asynccontextmanager
async def _store(folder: RunFolder | None, redis_url: str | None) -> AsyncIterator[RedisStore]:
    with contextlib.ExitStack() as stack:
        if redis_url is None:
            assert folder is not None
            embedded = EmbeddedRedis(folder.redis)
            try:
                stack.enter_context(folder.locked())
            except AlreadyRunningError:
                redis_url = embedded.attach()
            else:
                stack.callback(embedded.stop)
                embedded.start()
                redis_url = embedded.url
        store, _ = await connect(redis_url)
        try:
            yield store
        finally:
            await store.close()
