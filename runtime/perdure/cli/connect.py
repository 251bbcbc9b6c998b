"""A store for a command: the Redis that `--redis` names, once it has answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from perdure.cli.errors import UsageError
from perdure.errors import StoreAccessError, StoreUnavailableError
from perdure.local.state import NAMESPACE
from perdure.store.base import StoreFacts
from perdure.store.redis import RedisStore


async def connect(
    url: str,
    *,
    namespace: str = NAMESPACE,
    patience: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[RedisStore, StoreFacts]:
    """The store at `url` and what its server says of itself.

    namespace: whose runs it is for. patience: seconds to wait for one that doesn't answer; `tell` gets a
    line when the waiting begins.
    Raises UsageError, which says what to look at.
    """
    try:
        store = RedisStore.from_url(url)
    except ValueError as error:
        raise UsageError(f"--redis: {error}") from error
    until = time.monotonic() + patience
    waiting = False
    while True:
        try:
            facts = await store.server(namespace)
            break
        except StoreAccessError as error:
            raise UsageError(f"--redis: {error}") from error
        except StoreUnavailableError as error:
            if time.monotonic() > until:
                tried = f" (tried for {patience:g} s)" if patience else ""
                raise UsageError(f"--redis: {error}{tried}") from error
            if not waiting:
                tell(f"{error} Trying for {patience:g} s")
                waiting = True
            await asyncio.sleep(0.5)
    if facts.role != "master":
        raise UsageError(
            f"--redis: {store.where} is a replica, which takes no writes; give the URL of its primary"
        )
    return store, facts
