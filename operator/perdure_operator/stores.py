"""The stores that runs live in: one connection and one StoreWatch for each URL."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from perdure.control.api import StoreRef, WorkflowRun
from perdure.control.observation import StoreState, StoreView
from perdure.control.storeside import observe_store
from perdure.control.storewatch import StoreWatch, system_clock
from perdure.errors import StoreError
from perdure.store.base import Store
from perdure.store.redis import RedisStore
from perdure_operator.kube import Kube, KubeError

URL_FRESH_SECONDS = 15.0
# No more looks at one store at a time than its client has connections; the next would be refused one.
CONNECTIONS = 4
# A store that just failed to answer isn't asked again by each of its runs in turn.
FAILURE_FRESH_SECONDS = 1.0
UNUSED_SECONDS = 600.0


class StoreUrlError(Exception):
    """There is no usable URL for the run's store; says which Secret and key, and what is wrong."""


@dataclass(slots=True)
class Link:
    """One store as this operator sees it. used, failed: monotonic times of the last look and failure."""

    store: Store
    watch: StoreWatch
    used: float = 0.0
    failed: float = float("-inf")
    trouble: str = ""
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))


@dataclass(slots=True)
class _Url:
    url: str
    read: float


@dataclass(slots=True)
class Stores:
    """timeout bounds one look at a store, in seconds: one dead store must not stall the other runs."""

    kube: Kube
    default_url: str
    timeout: float
    open_store: Callable[[str], Store] = RedisStore.from_url
    links: dict[str, Link] = field(default_factory=dict)
    _urls: dict[tuple[str, str, str], _Url] = field(default_factory=dict)
    _missing_since: dict[str, float] = field(default_factory=dict)

    async def view(self, run: WorkflowRun, *, may_create_id: bool) -> StoreView:
        """One look at the run's store. What is wrong with it is in the view; raises KubeError only."""
        uid = run.metadata.uid
        try:
            link = self.link(await self.url(run))
        except StoreUrlError as error:
            now = time.time()
            since = self._missing_since.setdefault(uid, now)
            return StoreView(StoreState.UNREACHABLE, until=since, trouble_until=now, message=str(error))
        self._missing_since.pop(uid, None)
        async with link.turns:
            if time.monotonic() - link.failed < FAILURE_FRESH_SECONDS:
                return link.watch.unreachable(link.trouble, system_clock())
            view = await self._look(link, run, may_create_id)
        if view.state is StoreState.UNREACHABLE:
            link.failed, link.trouble = time.monotonic(), view.message
        return view

    async def _look(self, link: Link, run: WorkflowRun, may_create_id: bool) -> StoreView:
        try:
            async with asyncio.timeout(self.timeout):
                return await observe_store(
                    link.store,
                    link.watch,
                    namespace=run.metadata.namespace,
                    uid=run.metadata.uid,
                    expected_id=run.status.store_id,
                    lease_seconds=run.spec.recovery.lease_seconds,
                    clock=system_clock,
                    may_create_id=may_create_id,
                )
        except TimeoutError:
            link.watch.failed(system_clock())
            return link.watch.unreachable(
                f"the store didn't answer within {self.timeout:g} s", system_clock()
            )

    def link(self, url: str) -> Link:
        """Raises StoreUrlError when `url` is none."""
        link = self.links.get(url)
        if link is None:
            try:
                store = self.open_store(url)
            except (ValueError, StoreError) as error:
                # Not the URL itself: it holds the password.
                raise StoreUrlError(f"the store's URL can't be used: {error}") from error
            link = self.links[url] = Link(store, StoreWatch(system_clock()))
        link.used = time.monotonic()
        return link

    async def url(self, run: WorkflowRun) -> str:
        """Raises StoreUrlError when there is none."""
        ref = run.spec.store_ref
        if ref is None:
            if not self.default_url:
                raise StoreUrlError(
                    "this installation has no store of its own; name the Secret of yours in spec.storeRef"
                )
            return self.default_url
        key = (run.metadata.namespace, ref.name, ref.key)
        known = self._urls.get(key)
        if known is None or time.monotonic() - known.read > URL_FRESH_SECONDS:
            known = self._urls[key] = _Url(
                await self._read_url(run.metadata.namespace, ref), time.monotonic()
            )
        return known.url

    async def _read_url(self, namespace: str, ref: StoreRef) -> str:
        where = f"spec.storeRef: Secret {ref.name} in namespace {namespace}"
        try:
            secret = await self.kube.get_secret(namespace, ref.name)
        except KubeError as error:
            if error.status == 404:
                raise StoreUrlError(f"{where} doesn't exist") from error
            if error.status == 403:
                raise StoreUrlError(f"{where} may not be read: {error.message}") from error
            raise
        encoded = (secret.get("data") or {}).get(ref.key)
        if encoded is None:
            keys = ", ".join(sorted(secret.get("data") or {})) or "none"
            raise StoreUrlError(f"{where} has no key {ref.key}; its keys are: {keys}")
        try:
            url = base64.b64decode(encoded).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise StoreUrlError(f"{where}, key {ref.key}, is not text") from error
        if not url:
            raise StoreUrlError(f"{where}, key {ref.key}, is empty")
        return url

    def forget(self, uid: str) -> None:
        """The run is over or gone: its lease doesn't count any more."""
        self._missing_since.pop(uid, None)
        for link in self.links.values():
            link.watch.forget(uid)

    async def close_unused(self) -> None:
        """A changed password is a new URL; the old one's connections go."""
        before = time.monotonic() - UNUSED_SECONDS
        for url in [url for url, link in self.links.items() if link.used < before]:
            await self.links.pop(url).store.close()

    async def close(self) -> None:
        for link in self.links.values():
            await link.store.close()
