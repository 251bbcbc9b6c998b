"""One connection to a Redis, a command at a time, made anew by the next command after it broke.

It repeats nothing by itself: whether what was sent may be sent again is known to the sender alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from perdure.store.failures import translate
from perdure.store.scripts import Script
from perdure.store.wire import Wire

BYTES_PER_SECOND = 4 * 1024 * 1024  # a slow network's; large values get the time for it on top

Argument = bytes | str | int | float
# What would change the meaning of replies, or repeat commands, is not the URL's to say.
_NOT_FROM_URL = (
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "max_connections",
    "protocol",
    "retry_on_error",
    "retry_on_timeout",
    "socket_timeout",
    "socket_connect_timeout",
    "timeout",
)

# Its own types say that it takes one argument.
_pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


@cache
def _named() -> dict[str, Any]:
    """What a connection calls itself. Left out, the library reads its own version from the disk for each."""
    from perdure import __version__

    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # an older library
        return {"lib_name": "perdure", "lib_version": __version__}
    return {"driver_info": DriverInfo("perdure", __version__)}


class Address:
    """A server's URL, read once. `where` names it without its secrets."""

    def __init__(self, url: str) -> None:
        """Raises ValueError, which doesn't repeat the URL: it may hold a password."""
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except (ValueError, TypeError):
            raise ValueError(
                "not a Redis URL: it must look like redis://[[USER]:PASSWORD@]HOST:6379/0, rediss://… or"
                " unix:///path/to.sock"
            ) from None
        self.url = url
        self._class: type[AbstractConnection] = options.pop("connection_class", Connection)
        for name in _NOT_FROM_URL:
            options.pop(name, None)
        self._options = options | _named()
        path = options.get("path")
        self.where = (
            f"Redis at {path}"
            if path
            else f"Redis at {options.get('host', 'localhost')}:{options.get('port', 6379)}"
        )

    def connection(self) -> AbstractConnection:
        return self._class(**self._options, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0))


class Link:
    """Raises StoreUnavailableError and StoreAccessError. timeout: seconds, for connecting and a reply."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()  # of connecting

    async def call(self, *arguments: Argument, timeout: float | None = None) -> Any:
        """One command's reply."""
        (reply,) = await self.pipeline([arguments], timeout=timeout)
        if isinstance(reply, Exception):
            raise translate(reply, self._address.where) from reply
        return reply

    async def script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument], *, size: int = 0
    ) -> Any:
        """A script's reply. size: bytes of its arguments, if they are many."""
        timeout = self._timeout + size / BYTES_PER_SECOND
        (reply,) = await self._ask(_pack(("EVALSHA", script.sha, len(keys), *keys, *arguments)), 1, timeout)
        if isinstance(reply, NoScriptError):
            # The server is new or was flushed; it ran nothing.
            (reply,) = await self._ask(
                _pack(("EVAL", script.source, len(keys), *keys, *arguments)), 1, timeout
            )
        if isinstance(reply, Exception):
            raise translate(reply, self._address.where) from reply
        return reply

    async def pipeline(
        self, commands: Sequence[Sequence[Argument]], *, timeout: float | None = None
    ) -> list[Any]:
        """All replies in order, in one round trip; a refused command's is its exception, not raised."""
        packed = b"".join([_pack(tuple(command)) for command in commands])
        return await self._ask(packed, len(commands), self._timeout if timeout is None else timeout)

    async def _ask(self, packed: bytes, replies: int, timeout: float) -> list[Any]:
        try:
            wire = self._wire
            if wire is None or not wire.open:
                wire = await self._connected()
            return await wire.ask(packed, replies, timeout)
        except (RedisError, OSError, EOFError) as error:  # TimeoutError is an OSError
            raise translate(error, self._address.where) from error

    async def _connected(self) -> Wire:
        async with self._lock:
            if self._wire is not None and self._wire.open:
                return self._wire
            connection = self._address.connection()
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.connect()  # type: ignore[no-untyped-call]
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            self._wire = Wire(connection)
            return self._wire

    async def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
