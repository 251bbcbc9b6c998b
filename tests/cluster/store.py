"""The Redis of the cluster, asked past every part of Perdure."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis
from cluster.shell import run, wait_for

if TYPE_CHECKING:
    from cluster.cluster import Cluster


class Store:
    """A connection through `kubectl port-forward`, made anew when its Redis went away."""

    def __init__(self, cluster: Cluster, namespace: str, service: str, password: str = "") -> None:
        self.host = f"{service}.{namespace}"
        self._command = ["kubectl", "-n", namespace, "port-forward", f"service/{service}", ":6379"]
        self._environment = cluster.environment
        self._node = f"{cluster.name}-control-plane"
        self._password = password
        self._forward: subprocess.Popen[str] | None = None
        self._client: redis.Redis | None = None

    def hmget(self, key: str, *fields: str) -> list[str]:
        """ "" for what isn't there."""

        def ask() -> list[str] | None:
            try:
                values = self._connection().hmget(key, list(fields))
            except redis.RedisError:
                self.close()
                return None
            return [value or "" for value in values]  # type: ignore[union-attr]

        return wait_for(ask, 60, "an answer of the cluster's Redis")

    def _connection(self) -> redis.Redis:
        if self._client is None:
            self._forward = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._forward.stdout is not None
            line = self._forward.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 6379
            if not line:
                raise redis.ConnectionError("kubectl port-forward found nothing to forward to")
            port = int(line.split("->")[0].rsplit(":", 1)[1])
            self._client = redis.Redis(
                port=port, password=self._password or None, decode_responses=True, socket_timeout=5
            )
        return self._client

    @contextmanager
    def away(self, seconds: float) -> Iterator[None]:
        """The server doesn't answer for so long: stopped where it stands, with all it holds."""
        back = time.monotonic() + seconds
        run("docker", "exec", self._node, "pkill", "-STOP", "-x", "redis-server")
        try:
            yield
            time.sleep(max(0.0, back - time.monotonic()))
        finally:
            run("docker", "exec", self._node, "pkill", "-CONT", "-x", "redis-server")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._forward is not None:
            self._forward.kill()
            self._forward.wait()
        self._client = self._forward = None
