"""One connection: replies in order, silence, nonsense, and callers that give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis_server import RedisServer

from perdure.errors import StoreUnavailableError
from perdure.store.link import Link
from perdure.store.url import Address


@asynccontextmanager
async def answering(answer: Callable[[int], bytes]) -> AsyncIterator[Link]:
    """A link to a server that answers the n-th command after the handshake's with `answer(n)`."""
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while data := await reader.read(65536):
            commands = data.count(b"*")
            if b"SETINFO" in data:
                writer.write(b"+OK\r\n" * commands)
                continue
            for _ in range(commands):
                writer.write(answer(seen))
                seen += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = Link(Address(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"), timeout=0.2)
    try:
        yield link
    finally:
        await link.close()
        server.close()


def test_a_silent_server_is_away_and_the_next_call_asks_anew() -> None:
    async def scenario() -> None:
        async with answering(lambda n: b"" if n == 0 else b"+here\r\n") as link:
            with pytest.raises(StoreUnavailableError, match="no reply in time"):
                await link.call("ECHO", "0")
            assert await link.call("ECHO", "1") == b"here"

    asyncio.run(scenario())


def test_a_shorter_patience_behind_a_longer_one_is_kept(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        link = Link(Address(redis_server.url), timeout=60)
        await link.call("ECHO", "0")  # arms the watch, 60 s from now
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="no reply in time"):
            await link.call("BLPOP", "nothing comes here", 30, timeout=0.05)
        assert time.monotonic() - started < 20
        await link.close()

    asyncio.run(scenario())


def test_a_reply_that_came_while_the_loop_was_blocked_is_in_time(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        link = Link(Address(redis_server.url), timeout=0.05)
        await link.call("ECHO", "0")
        asked = asyncio.create_task(link.call("ECHO", "1"))
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 a step that blocks the loop, for longer than the reply may take
        assert await asked == b"1"
        await link.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+one\r\n+and one too many\r\n"])
def test_what_is_not_the_protocol_ends_the_connection_not_the_link(nonsense: bytes) -> None:
    async def scenario() -> None:
        async with answering(lambda n: nonsense if n == 0 else b"+right\r\n") as link:
            first = await asyncio.gather(link.call("ECHO", "0"), return_exceptions=True)
            assert isinstance(first[0], StoreUnavailableError) or first == [b"one"]
            assert await link.call("ECHO", "1") == b"right"

    asyncio.run(scenario())


def test_callers_at_once_get_each_their_own_reply_over_one_connection(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        link = Link(Address(redis_server.url), timeout=5)
        calls = [asyncio.create_task(link.call("ECHO", str(number))) for number in range(100)]
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        kept = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert kept == [str(number).encode() for number in range(100) if number % 3]
        await link.close()

    asyncio.run(scenario())


def test_a_connection_that_the_server_closed_while_idle_costs_no_call(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        link = Link(Address(redis_server.url), timeout=5)
        other = Link(Address(redis_server.url), timeout=5)
        number = await link.call("CLIENT", "ID")
        await other.call("CLIENT", "KILL", "ID", number)
        await asyncio.sleep(0.05)
        assert await link.call("ECHO", "1") == b"1"
        assert await link.call("CLIENT", "ID") != number
        await link.close()
        await other.close()

    asyncio.run(scenario())
