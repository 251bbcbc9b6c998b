"""Redis servers that stand together: a primary with its replica and sentinels, and a cluster of three."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType

from redis.crc import key_slot
from redis_server import RedisServer, binary

from perdure.store.keys import RunKeys

MASTER = "mymaster"
PATIENCE = 60.0
SLOTS = 16384


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.02)


class Sentinel(RedisServer):
    """Watches one primary, which it fails over two seconds after that fell silent."""

    def __init__(self, primary: RedisServer, program: str = "") -> None:
        super().__init__(program=program)
        self._conf = self.directory / "sentinel.conf"
        self._conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 2000\nsentinel failover-timeout {MASTER} 5000\n"
        )

    def _command(self) -> list[str]:
        return [self._program or binary(), str(self._conf), "--sentinel"]


class Group:
    """Closes the servers that it opened."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


class Sentinels(Group):
    """A primary, its replica, and three sentinels. Options are both servers'."""

    def __init__(self, program: str = "", **options: str | int) -> None:
        super().__init__()
        self.primary = RedisServer(program=program, **options)
        self.replica = RedisServer(program=program, replicaof=f"127.0.0.1 {self.primary.port}", **options)
        self.sentinels = [Sentinel(self.primary, program) for _ in range(3)]

    def __enter__(self) -> Sentinels:
        with contextlib.ExitStack() as opened:
            for server in (self.primary, self.replica, *self.sentinels):
                opened.enter_context(server)
            until(self._complete, "sentinels that know each other, and a replica in step")
            self._open = opened.pop_all()
        return self

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client as client:
                known = client.sentinel_master(MASTER)
                if (known["num-other-sentinels"], known["num-slaves"]) != (2, 1):
                    return False
        with self.replica.client as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    @property
    def url(self) -> str:
        nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{nodes}/{MASTER}"

    def cut_replication(self) -> None:
        """The replica gets nothing more, and both think nothing of it that a network might not cause."""
        with self.primary.client as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def until_promoted(self) -> float:
        """When the replica was seen to be the primary (monotonic)."""
        with self.replica.client as client:
            until(lambda: client.info("replication")["role"] == "master", "the promotion")
        return time.monotonic()


class Cluster(Group):
    """Three primaries that share the slots."""

    def __init__(self, program: str = "") -> None:
        super().__init__()
        self._program = program
        self._options: dict[str, str | int] = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": 2000,
            "cluster_require_full_coverage": "no",
        }
        self.nodes = [RedisServer(program=program, **self._options) for _ in range(3)]

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as opened:
            for node in self.nodes:
                opened.enter_context(node)
            each = -(-SLOTS // len(self.nodes))
            for number, node in enumerate(self.nodes):
                with node.client as client:
                    own = range(number * each, min(SLOTS, (number + 1) * each))
                    client.execute_command("CLUSTER", "ADDSLOTS", *own)
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
            until(lambda: all(self._whole(node) for node in self.nodes), "a whole cluster")
            self._open = opened.pop_all()
        return self

    @staticmethod
    def _whole(node: RedisServer) -> bool:
        with node.client as client:
            told = client.execute_command("CLUSTER", "INFO").decode().split()
            return {"cluster_state:ok", f"cluster_slots_assigned:{SLOTS}", "cluster_known_nodes:3"} <= set(
                told
            )

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def owner(self, slot: int) -> RedisServer:
        """At the beginning."""
        each = -(-SLOTS // len(self.nodes))
        return self.nodes[slot // each]

    def add_replica(self, primary: RedisServer) -> RedisServer:
        """A fourth node, which takes the primary's place when that falls silent."""
        replica = self._open.enter_context(RedisServer(program=self._program, **self._options))
        with primary.client as near, replica.client as far:
            far.execute_command("CLUSTER", "MEET", "127.0.0.1", primary.port)
            identity = near.execute_command("CLUSTER", "MYID")
            until(lambda: identity.decode() in str(far.execute_command("CLUSTER", "NODES")), "a meeting")
            far.execute_command("CLUSTER", "REPLICATE", identity)
            until(lambda: far.info("replication")["master_link_status"] == "up", "a replica in step")
        return replica

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Its keys are still with `source`; from here on some may be with the one, some with the other."""
        with source.client as near, target.client as far:
            source_id, target_id = (
                str(one.execute_command("CLUSTER", "MYID").decode()) for one in (near, far)
            )
            far.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            near.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        with source.client as near:
            while keys := near.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                near.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, target: RedisServer) -> None:
        with target.client as far:
            target_id = far.execute_command("CLUSTER", "MYID").decode()
        for node in (target, *(node for node in self.nodes if node is not target)):
            with node.client as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def slot_of(namespace: str, uid: str) -> int:
    return int(key_slot(RunKeys.of(namespace, uid).meta.encode()))
