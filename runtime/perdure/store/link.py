"""A way to a store: a connection, a command at a time, made anew by the next command after it broke.

It repeats nothing that may have been done: whether what was sent may be sent again is known to the sender
alone. What a server refused to do, having loaded no such script or having no such slot, it sends again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis.exceptions import NoScriptError, RedisError

from perdure.errors import StoreUnavailableError
from perdure.store.failures import misplaced, translate
from perdure.store.scripts import Script
from perdure.store.topology import Topology, topology
from perdure.store.url import Address, Node
from perdure.store.wire import Wire

BYTES_PER_SECOND = 4 * 1024 * 1024  # a slow network's; large values get the time for it on top

WAIT_MS = 1000  # for replicas, before the sender is told who is missing

HOPS = 5  # how often a call is sent on before the cluster counts as not knowing where its slots are

Argument = bytes | str | int | float
# Its own types say that it takes one argument.
_pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Link:
    """Raises StoreUnavailableError and StoreAccessError. timeout: seconds, for connecting and a reply.

    One connection, but to a cluster: there shared=True keeps one to each of its nodes.
    """

    def __init__(self, address: Address, timeout: float, *, shared: bool = False) -> None:
        self._address = address
        self._timeout = timeout
        self._shared = shared
        self._topology: Topology = topology(address)
        self._wires: dict[Node, Wire] = {}
        self.connections = 0  # that were made so far
        self._lock = asyncio.Lock()  # of connecting

    async def call(self, *arguments: Argument, timeout: float | None = None) -> Any:
        """One command's reply. Its first argument is its key, if it has one."""
        key = str(arguments[1]) if len(arguments) > 1 else ""
        (reply,) = await self.pipeline([arguments], key=key, timeout=timeout)
        if isinstance(reply, Exception):
            raise translate(reply, self._address.where) from reply
        return reply

    async def script(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        *,
        size: int = 0,
    ) -> Any:
        """A script's reply. size: bytes of its arguments, if they are many."""
        reply, _ = await self.script_on_replicas(script, keys, arguments, 0, size=size)
        return reply

    async def script_on_replicas(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        replicas: int,
        *,
        size: int = 0,
        since: int | None = None,
    ) -> tuple[Any, int]:
        """A script's reply, and how many replicas had what it wrote as soon as `replicas` had, or after WAIT_MS.

        In one round trip. The script must be one that may be repeated, and write when it is.
        since: the number of `connections` there was; over another one nothing is sent, but
        StoreUnavailableError raised.
        """
        key, timeout = keys[0], self._timeout + size / BYTES_PER_SECOND
        wait, count = (_pack(("WAIT", replicas, WAIT_MS)), 2) if replicas else (b"", 1)
        reply, *reached = await self._ask(
            _pack(("EVALSHA", script.sha, len(keys), *keys, *arguments)) + wait, count, key, timeout, since
        )
        if isinstance(reply, NoScriptError):
            # The server is new or was flushed; it ran nothing.
            reply, *reached = await self._ask(
                _pack(("EVAL", script.source, len(keys), *keys, *arguments)) + wait,
                count,
                key,
                timeout,
                since,
            )
        for answer in (reply, *reached):
            if isinstance(answer, Exception):
                raise translate(answer, self._address.where) from answer
        return reply, reached[0] if reached else 0

    async def pipeline(
        self, commands: Sequence[Sequence[Argument]], *, key: str, timeout: float | None = None
    ) -> list[Any]:
        """All replies in order, in one round trip; a refused command's is its exception, not raised.

        key: whose server is asked. More than one command must be such as may be repeated.
        """
        packed = b"".join([_pack(tuple(command)) for command in commands])
        return await self._ask(packed, len(commands), key, self._timeout if timeout is None else timeout)

    def leave(self, key: str) -> None:
        """Who has `key` isn't the one to talk to, by what it says: the next call looks anew."""
        if (node := self._topology.node(key)) is not None:
            self._leave(node, self._wires.get(node))

    async def _ask(
        self, packed: bytes, count: int, key: str, timeout: float, since: int | None = None
    ) -> list[Any]:
        node, first = self._topology.node(key), b""
        wire: Wire | None = None
        try:
            for _ in range(HOPS):
                if node is None or (wire := self._wires.get(node)) is None or not wire.open:
                    node, wire = await self._reached(key, node)
                if since is not None and since != self.connections:
                    raise StoreUnavailableError(
                        f"the connection to {self._address.where} broke: what is there now may have less in it"
                    )
                if first:
                    _, *replies = await wire.ask(first + packed, count + 1, timeout)
                else:
                    replies = await wire.ask(packed, count, timeout)
                refusals = [reply for reply in replies if isinstance(reply, RedisError)]
                if not refusals:
                    return replies
                if (to := self._topology.redirected(key, node, refusals)) is None:
                    if any(misplaced(refusal) for refusal in refusals):
                        self._leave(node, wire)
                    return replies
                node, first = to
        except (RedisError, OSError, EOFError) as error:  # TimeoutError is an OSError
            self._leave(node, wire)
            raise translate(error, self._address.where) from error
        raise StoreUnavailableError(
            f"{self._address.where} can't tell which node has {key}; wait until it can"
        )

    async def _reached(self, key: str, node: Node | None) -> tuple[Node, Wire]:
        """Connected to `node`, or, if that fails at once, to another of its cluster: nothing was sent yet."""
        while True:
            began = time.monotonic()
            try:
                return await self._connected(key, node)
            except (RedisError, OSError):
                other = self._topology.node(key)
                # The first that was named ends the round, and the caller's next try begins another.
                if (
                    other in (None, *self._address.nodes[:1], node)
                    or time.monotonic() - began > self._timeout / 2
                ):
                    raise
                node = other

    async def _connected(self, key: str, node: Node | None) -> tuple[Node, Wire]:
        async with self._lock, asyncio.timeout(self._timeout):
            if node is None:
                node = self._topology.node(key) or await self._topology.find(key, self._timeout)
            found = self._wires.get(node)
            if found is not None and found.open:
                return node, found
            if not self._shared:
                self._close()
            connection = self._address.connection(node)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                wire = Wire(connection)
                await self._topology.check(wire, self._timeout)
            except BaseException:
                self._topology.leave(node)
                await connection.disconnect(nowait=True)
                raise
            self._wires[node] = wire
            self.connections += 1
            return node, wire

    def _leave(self, node: Node | None, wire: Wire | None) -> None:
        """Who is at `node` doesn't answer, or isn't the one to talk to: the next call looks anew."""
        if node is not None:
            self._topology.leave(node)
            if wire is not None and self._wires.get(node) is wire:
                del self._wires[node]
        if wire is not None:
            wire.close()

    def _close(self) -> None:
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            wire.close()

    async def close(self) -> None:
        self._close()
