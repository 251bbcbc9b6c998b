"""The way to the store and back: requests and replies are late, lost or there twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.errors import StoreUnavailableError
from perdure.store.base import Commit, Loaded, Message, Renewed, Reply
from perdure.store.memory import MemoryRunStore

if TYPE_CHECKING:
    from simulation.world import World

T = TypeVar("T")
PATIENCE = 2.0  # seconds after which a client gives a reply up


def ask(question: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """The answer of the store in memory, which waits for nothing."""
    try:
        question.send(None)  # type: ignore[union-attr]
    except StopIteration as answer:
        return answer.value  # type: ignore[no-any-return]
    raise AssertionError("the store in memory waits for nothing")


class Link:
    """One process's connection. What it sent arrives even when the process is dead by then."""

    def __init__(self, world: World, store: MemoryRunStore, holder: str) -> None:
        self._world = world
        self._store = store
        self._holder = holder
        self._loop = asyncio.get_running_loop()

    async def _call(self, what: str, request: Callable[[], Awaitable[T]]) -> T:
        world, chance = self._world, self._world.chance
        fault = chance.random() if world.faulty else 1.0
        reply: asyncio.Future[T] = self._loop.create_future()

        def arrive() -> None:
            answer = world.ask(self._holder, what, request)
            if fault >= 0.08:
                later(world.delay(), lambda: reply.done() or reply.set_result(answer))

        def later(delay: float, action: Callable[[], Any]) -> None:
            # Nobody's process is in charge of it, so it comes though the sender be killed.
            self._loop.call_at(self._loop.time() + delay, action, context=NOBODY)

        if fault >= 0.04:
            later(world.delay(), arrive)
        if 0.08 <= fault < 0.14:
            later(world.delay() + chance.uniform(0, 3), lambda: world.ask(self._holder, what, request))
        if fault < 0.08:
            world.say(self._holder, f"{what}: {'request' if fault < 0.04 else 'reply'} lost")
            error = StoreUnavailableError("no reply")
            later(PATIENCE * chance.random(), lambda: reply.done() or reply.set_exception(error))
        return await reply

    async def acquire(self, epoch: int, holder: str, ttl_ms: int) -> Any:
        return await self._call("acquire", lambda: self._world.acquire(self._store, epoch, holder, ttl_ms))

    async def commit(self, epoch: int, holder: str, commit: Commit) -> Reply:
        return await self._call(
            f"commit {commit.seq}", lambda: self._world.commit(self._store, epoch, holder, commit)
        )

    async def cut(self, epoch: int, holder: str, seq: int, snapshot: bytes) -> Reply:
        return await self._call(f"cut {seq}", lambda: self._store.cut(epoch, holder, seq, snapshot))

    async def release(self, epoch: int, holder: str, kind: str, **options: Any) -> Reply:
        return await self._call("release", lambda: self._store.release(epoch, holder, kind, **options))

    async def renew(self, epoch: int, holder: str, ttl_ms: int) -> Renewed | Reply:
        return await self._call("renew", lambda: self._store.renew(epoch, holder, ttl_ms))

    async def inbox(self, after: str, count: int) -> list[tuple[str, Message]]:
        return await self._call("inbox", lambda: self._store.inbox(after, count))

    async def send(self, message: Message) -> Reply:
        return await self._call("send", lambda: self._store.send(message))

    async def load(self) -> Loaded | None:
        return await self._call("load", self._store.load)


NOBODY = Context()
