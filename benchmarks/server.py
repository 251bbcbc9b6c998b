"""A Redis of the benchmarks' own, on a TCP port as in a cluster, with its append-only file on the disk."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextvars import ContextVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from perdure.local.embedded import find_server

_port: ContextVar[int] = ContextVar("port")


def url() -> str:
    """Of the server that is up around the benchmark."""
    return f"redis://127.0.0.1:{_port.get()}/0"


def client() -> redis.Redis:
    """A blocking client of it, to ask what it counted. Use it in a `with`."""
    return redis.Redis.from_url(url(), retry=Retry(NoBackoff(), 0))


def hush() -> None:
    """In this process: that everysec may lose a second is what is measured here, not news for each run."""
    logging.getLogger("perdure").setLevel(logging.ERROR)


@contextlib.contextmanager
def server(appendfsync: str = "everysec") -> Iterator[None]:
    """While it lasts there is a server, empty at first."""
    hush()
    with socket.socket() as probe, tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        options = {
            "port": str(port), "bind": "127.0.0.1", "dir": folder, "save": "",
            "appendonly": "yes", "appendfsync": appendfsync,
        }  # fmt: skip
        command = [find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        token = _port.set(port)
        try:
            _until_up(process)
            yield
        finally:
            _port.reset(token)
            process.terminate()
            process.wait()


def _until_up(process: subprocess.Popen[bytes]) -> None:
    with client() as asking:
        while True:
            try:
                asking.ping()
                return
            except redis.ConnectionError:
                if process.poll() is not None:
                    raise RuntimeError(f"redis-server ended with {process.returncode}") from None
                time.sleep(0.02)
