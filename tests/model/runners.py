"""Runners of the model: the real RunSession, held still between each request and its reply.

A coroutine can't be copied, but played again with the same replies it comes to the same place. So where
a runner stands is kept as the replies that brought it there; two ways to one place are one, by a
fingerprint of the session and of the frames that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import msgspec

from perdure.engine.journal import Batch
from perdure.errors import StoreUnavailableError
from perdure.store.base import Acquired, Commit, Loaded, Reply
from perdure.store.records import Record
from perdure.store.session import RunSession

COMMITS = 3  # steps of the run; the last one brings its outcome


class Request(NamedTuple):
    """What a runner asks of the store."""

    name: str
    epoch: int
    holder: str
    commit: Commit | None = None


class Ask:
    """Yields the request to who plays the runner, and gives its reply."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def __await__(self) -> Generator[Request, Any, Any]:
        reply = yield self.request
        if isinstance(reply, Exception):
            raise reply
        return reply


class Wire:
    """The store as a session sees it."""

    async def acquire(self, epoch: int, holder: str, ttl_ms: int) -> Acquired | Reply:
        return await Ask(Request("acquire", epoch, holder))

    async def load(self) -> Loaded | None:
        return await Ask(Request("load", 0, ""))

    async def commit(self, epoch: int, holder: str, commit: Commit) -> Reply:
        return await Ask(Request("commit", epoch, holder, commit))


class Event(NamedTuple):
    """What a runner did: resumed (with), began, committed or ended (why)."""

    what: str
    detail: Any = None


async def live(session: RunSession, did: Callable[[Event], None]) -> None:
    """What a runner's process does with its run."""
    await _insist(lambda: session.acquire(10_000))
    _, records = await _insist(session.load)
    found = tuple(record.payload.decode() for record in records[1:])
    did(Event("resumed", found))
    for number in range(len(found) + 1, COMMITS + 1):
        did(Event("began", number))
        payload = f"{number} by {session.holder}"
        await session.commit(Batch(payload=payload.encode(), outcome=b"done" if number == COMMITS else None))
        did(Event("committed", payload))


async def _insist(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            continue


async def _at_once(_seconds: float) -> None:
    pass


class Place(NamedTuple):
    """Where a runner stands: what it asks, or None when it is gone; what it did on the way from the last."""

    request: Request | None
    number: int


class Runners:
    """All places that runners were seen at."""

    def __init__(self) -> None:
        self._ways: list[tuple[int, str, tuple[Any, ...]]] = []  # to each place, by its number
        self._requests: list[Request | None] = []
        self._numbers: dict[Any, int] = {}
        self._known: dict[Any, tuple[int, tuple[Event, ...]]] = {}

    def start(self, epoch: int, holder: str) -> tuple[int, tuple[Event, ...]]:
        return self._go(epoch, holder, ())

    def request(self, place: int) -> Request | None:
        return self._requests[place]

    def reply(self, place: int, reply: Any) -> tuple[int, tuple[Event, ...]]:
        """Where it goes from `place` with that reply, and what it does on the way."""
        key = (place, _plain(reply))
        known = self._known.get(key)
        if known is None:
            epoch, holder, way = self._ways[place]
            known = self._known[key] = self._go(epoch, holder, (*way, reply))
        return known

    def _go(self, epoch: int, holder: str, way: tuple[Any, ...]) -> tuple[int, tuple[Event, ...]]:
        events: list[Event] = []
        wire: Any = Wire()
        session = RunSession(wire, epoch=epoch, holder=holder, sleep=_at_once, clock=lambda: 0.0)
        runner = live(session, events.append)
        request: Request | None = None
        try:
            request = runner.send(None)
            for reply in way:
                events.clear()
                request = runner.send(reply)
            mark: Any = (epoch, holder, request, _plain(_fields(session)), _frames(runner))
        except StopIteration:
            request, mark = None, (epoch, holder, "done")
        except Exception as error:
            events.append(Event("ended", f"{type(error).__name__}: {error}"))
            request, mark = None, (epoch, holder, type(error).__name__)
        runner.close()
        number = self._numbers.get(mark)
        if number is None:
            number = self._numbers[mark] = len(self._ways)
            self._ways.append((epoch, holder, way))
            self._requests.append(request)
        return number, tuple(events)


def _fields(session: RunSession) -> Any:
    held = session._held
    return (
        session.seq,
        tuple(commit.digest for _, commit in held._kept),
        (held._floor, held._floor_digest),
        session._sent[0].digest if session._sent is not None else None,
        session._went_back,
        session._unsure,
        repr(session._over),
    )


def _frames(runner: Any) -> Any:
    """Where each of the coroutines that wait stands, and with what."""
    found = []
    while hasattr(runner, "cr_frame"):
        frame = runner.cr_frame
        names = {name: value for name, value in frame.f_locals.items() if name not in ("self", "pause")}
        found.append((frame.f_code.co_qualname, frame.f_lasti, _plain(names)))
        runner = runner.cr_await
    return tuple(found)


def _plain(value: Any) -> Any:
    """As something to compare; what only leads elsewhere is left out."""
    if value is None or isinstance(value, str | int | bytes):
        return value
    if isinstance(value, dict):
        return tuple((key, _plain(item)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, msgspec.Struct):
        return (type(value).__name__, *(_plain(item) for item in msgspec.structs.astuple(value)))
    if isinstance(value, Acquired | Loaded | Record | Batch):
        return (type(value).__name__, *(_plain(getattr(value, name)) for name in value.__slots__))
    if isinstance(value, Exception):
        return repr(value)
    return type(value).__name__
