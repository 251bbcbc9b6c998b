"""Which server has a key: the one there is, the master that sentinels name, or a slot's owner in a cluster.

A topology belongs to one event loop. It remembers what it learned until someone says that it was wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import AskError, ConnectionError, MovedError, RedisError

from perdure.store.url import Address, Kind, Node
from perdure.store.wire import Wire

ASKING = b"*1\r\n$6\r\nASKING\r\n"


class Topology(Protocol):
    def node(self, key: str) -> Node | None:
        """Where `key` is as far as is known; None when it has to be looked for."""
        ...

    async def find(self, key: str, timeout: float) -> Node:
        """Look for it. Raises RedisError, OSError or TimeoutError."""
        ...

    async def check(self, wire: Wire, timeout: float) -> None:
        """Whether who was just connected to is the one to talk to. Raises ConnectionError."""
        ...

    def redirected(self, key: str, node: Node, replies: Sequence[Any]) -> tuple[Node, bytes] | None:
        """Where `node`'s replies say to ask instead, and what to say first; it did nothing then."""
        ...

    def leave(self, node: Node) -> None:
        """It doesn't answer, or isn't the one any more: look anew."""
        ...


def topology(address: Address) -> Topology:
    match address.kind:
        case Kind.SINGLE:
            return Single(address.nodes[0])
        case Kind.SENTINEL:
            return Sentinels(address)
        case Kind.CLUSTER:
            return Cluster(address.nodes)


class Single:
    def __init__(self, node: Node) -> None:
        self._node = node

    def node(self, key: str) -> Node:
        return self._node

    async def find(self, key: str, timeout: float) -> Node:
        return self._node

    async def check(self, wire: Wire, timeout: float) -> None:
        pass

    def redirected(self, key: str, node: Node, replies: Sequence[Any]) -> None:
        return None

    def leave(self, node: Node) -> None:
        pass


class Sentinels:
    """Asked before each connection, in turn, the one that answered last first."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._sentinels = list(address.nodes)
        self._master: Node | None = None

    def node(self, key: str) -> Node | None:
        return self._master

    async def find(self, key: str, timeout: float) -> Node:
        failures = []
        for sentinel in list(self._sentinels):
            try:
                # One that is gone mustn't take the time of those that are left.
                async with asyncio.timeout(timeout / (len(self._sentinels) + 1)):
                    self._master = await self._ask(sentinel)
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                failures.append(f"{sentinel}: {error or type(error).__name__}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return self._master
        raise ConnectionError(f"no sentinel names a master: {'; '.join(failures)}")

    async def _ask(self, sentinel: Node) -> Node:
        connection = self._address.sentinel_connection(sentinel)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)
            found = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        if not found:
            raise ConnectionError(f"doesn't know {self._address.master}")
        host, port = found
        return Node(host.decode(), int(port))

    async def check(self, wire: Wire, timeout: float) -> None:
        # A sentinel that was cut off itself names the master of yesterday.
        (role,) = await wire.ask(b"*1\r\n$4\r\nROLE\r\n", 1, timeout)
        if isinstance(role, Exception):
            raise role
        if role[0] != b"master":
            raise ConnectionError(f"the sentinels name a {role[0].decode()} as {self._address.master}")

    def redirected(self, key: str, node: Node, replies: Sequence[Any]) -> None:
        return None

    def leave(self, node: Node) -> None:
        self._master = None


class Cluster:
    """Learned from its redirections, slot by slot: any node knows the owner of each."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._named = nodes
        self._known = list(nodes)
        self._owners: dict[int, Node] = {}

    def node(self, key: str) -> Node:
        return self._owners.get(key_slot(key.encode()), self._known[0])

    async def find(self, key: str, timeout: float) -> Node:
        return self.node(key)

    async def check(self, wire: Wire, timeout: float) -> None:
        pass

    def redirected(self, key: str, node: Node, replies: Sequence[Any]) -> tuple[Node, bytes] | None:
        for reply in replies:
            if isinstance(reply, AskError):
                # Without a host where the cluster doesn't know under which name it is seen.
                to = Node(reply.host or node.host, reply.port)
                if not isinstance(reply, MovedError):  # which the library makes a kind of AskError
                    return to, ASKING  # this once: the slot is on its way
                self._owners[key_slot(key.encode())] = to
                if to not in self._known:
                    self._known.append(to)
                return to, b""
        return None

    def leave(self, node: Node) -> None:
        self._owners = {slot: owner for slot, owner in self._owners.items() if owner != node}
        # Another is asked next, for it may be this one that is wrong. What was only heard of and fails is
        # forgotten: a cluster's nodes come and go.
        if node in self._known:
            self._known.remove(node)
            if node in self._named:
                self._known.append(node)
