"""A TCP proxy in front of a server, which cuts a connection at a chosen command, or answers in its place."""

from __future__ import annotations

import asyncio
import contextlib
from enum import StrEnum
from types import TracebackType


class Cut(StrEnum):
    BEFORE = "before the request"  # the server never sees it
    WITHIN = "within the request"  # the server gets half of it
    AFTER = "after the request"  # the server gets it, and the client is gone at once
    REPLY = "before the reply"  # the server has answered, and the answer is lost


class Proxy:
    """Listens on a free port. `cut_at(marker, how)` arms one cut, at the next request that holds `marker`.

    `answer(marker, reply, times)` has such requests answered with `reply` so often, unseen by the server.
    All requests that hold `marker` are kept in `seen`. connections: how many there were.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._marker = b""
        self._how: Cut | None = None
        self.cuts = 0
        self._reply = b""
        self._times = 0
        self.seen: list[bytes] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut_at(self, marker: bytes, how: Cut) -> None:
        self._marker, self._how = marker, how

    def answer(self, marker: bytes, reply: bytes, times: int = 1) -> None:
        self._marker, self._reply, self._times = marker, reply, times

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            try:
                await self._join(reader, writer, up_reader, up_writer)
            finally:
                up_writer.close()
        except OSError:
            pass  # the server is down: so is this connection
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        swallow = asyncio.Event()

        async def back() -> None:
            while data := await up_reader.read(65536):
                if swallow.is_set():
                    return
                writer.write(data)
                await writer.drain()

        answers = asyncio.create_task(back())
        try:
            while data := await reader.read(1 << 20):
                marked = bool(self._marker) and self._marker in data
                if marked:
                    self.seen.append(data)
                if marked and self._times:
                    self._times -= 1
                    writer.write(self._reply)
                    await writer.drain()
                    continue
                how = self._how if marked else None
                if how is None:
                    up_writer.write(data)
                    await up_writer.drain()
                    continue
                self._how = None
                self.cuts += 1
                if how is Cut.BEFORE:
                    return
                if how is Cut.WITHIN:
                    data = data[: len(data) // 2]
                swallow.set()
                up_writer.write(data)
                await up_writer.drain()
                if how is Cut.REPLY:
                    await answers
                else:
                    # All of it must have arrived, or the server would not act on it.
                    up_writer.write_eof()
                return
        finally:
            answers.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await answers
