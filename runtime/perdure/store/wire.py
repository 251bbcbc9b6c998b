"""The replies of one connection, in the order of what was asked: the protocol under a Link.

It takes a connection over from the client library once that has shaken hands, because the library's
streams, locks and tasks cost several times what the exchange itself does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, TimeoutError

BUFFER_BYTES = 64 * 1024


class _Asked:
    __slots__ = ("answer", "deadline", "missing", "replies")

    def __init__(self, answer: asyncio.Future[list[Any]], missing: int, deadline: float) -> None:
        self.answer = answer
        self.missing = missing
        self.deadline = deadline
        self.replies: list[Any] = []


class Wire(asyncio.BufferedProtocol):
    """Who gives up waiting leaves his place in the line: the reply that still comes is dropped there."""

    def __init__(self, connection: AbstractConnection) -> None:
        """connection: connected, with no reply outstanding. Its options are the library's, its bytes ours."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)
        # Read into: a fresh buffer for each read costs more than all else that a reply does.
        self._buffer = bytearray(BUFFER_BYTES)
        # TLS reads what more there is into a slice of it, which must be no copy.
        self._view = memoryview(self._buffer)
        self._asked: deque[_Asked] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport = connection._writer.transport  # type: ignore[union-attr, assignment]
        self.open = not self._transport.is_closing()
        self._transport.set_protocol(self)

    def ask(self, packed: bytes, replies: int, timeout: float) -> asyncio.Future[list[Any]]:
        """Send, and resolve to so many replies; a refused command's is its exception, not raised.

        Raises redis.exceptions.RedisError when the connection breaks or is silent for `timeout` seconds.
        """
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self.open:
            answer.set_exception(ConnectionError("the connection is closed"))
            return answer
        deadline = self._loop.time() + timeout
        self._asked.append(_Asked(answer, replies, deadline))
        self._transport.write(packed)
        # One timer for all that is asked, looked at when it fires: one for each would cost more than
        # the rest of this.
        if self._watch is None or deadline < self._watch.when():
            self._arm(deadline)
        return answer

    def close(self) -> None:
        self._break(ConnectionError("the connection was closed"))

    # --- what asyncio tells -----------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, size: int) -> None:
        try:
            self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except Exception as error:  # what isn't the protocol leaves no way to tell one reply from the next
            self._break(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._break(ConnectionError(str(error) if error else "the server closed the connection"))

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, reply: Any) -> None:
        if not self._asked:
            raise InvalidResponse(f"a reply to nothing: {reply!r:.100}")
        first = self._asked[0]
        first.replies.append(reply)
        first.missing -= 1
        if not first.missing:
            self._asked.popleft()
            if not first.answer.done():
                first.answer.set_result(first.replies)

    def _arm(self, deadline: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        # Replies that are there already came before this: asyncio reads before it looks at its timers.
        self._watch = None
        if not self._asked:
            return
        deadline = self._asked[0].deadline
        if deadline <= self._loop.time():
            self._break(TimeoutError("no reply in time"))
        else:
            self._arm(deadline)

    def _break(self, error: Exception) -> None:
        self.open = False
        self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        asked, self._asked = self._asked, deque()
        for one in asked:
            if not one.answer.done():
                one.answer.set_exception(error)
                one.answer.exception()  # who is asked for no more is no error
