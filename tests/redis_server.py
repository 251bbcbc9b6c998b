"""A real redis-server (or valkey-server) of a test's own: in a temporary directory, with an append-only file."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from perdure.local.embedded import bundled

STARTUP_SECONDS = 60.0  # a busy machine's, where a server is up in 0.1 s


def binary() -> str:
    """The server's program. Raises FileNotFoundError that says how to get one."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise FileNotFoundError("the tests need redis-server or valkey-server (6.2 or newer) on the PATH")
    return found


def programs() -> list[str]:
    """Every redis-server and valkey-server on the PATH, and the one that came as a wheel."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = (
        shutil.which(name, path=folder) for folder in folders for name in ("redis-server", "valkey-server")
    )
    return list(dict.fromkeys([program for program in found if program] + bundled()))


def scratch() -> str | None:
    """Where servers keep their files: in memory, if there is room.

    A killed process leaves what it wrote in the kernel's hands, so a disk would prove nothing more, and
    a busy one stalls every write for seconds.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 512 * 1024 * 1024:
        return str(memory)
    return None


def free_port(highest: int = 30000) -> int:
    """Below the ports that connecting clients are given: one of them would take a killed server's meanwhile."""
    while True:
        port = random.SystemRandom().randrange(15000, highest)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """Options are those of redis.conf, with `_` for `-`: `RedisServer(appendfsync="always", maxmemory="8mb")`.

    program: another than the PATH's. unix=True listens on a socket in its directory alone.
    Its data outlives `kill` and `stop` until the object is closed (`close`, or the end of its `with`).
    """

    def __init__(self, *, program: str = "", unix: bool = False, **options: str | int) -> None:
        # Short, since a unix socket's path may have no more than about 100 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="perdure-", dir=scratch()))
        self._program = program
        # A cluster's nodes talk to each other at a port 10,000 above.
        self.port = 0 if unix else free_port(22000 if "cluster_enabled" in options else 30000)
        self.password = str(options.get("requirepass", ""))
        self._socket = self.directory / "redis.sock"
        self._options: dict[str, str | int] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "logfile": str(self.directory / "redis.log"),
        }
        if unix:
            self._options["unixsocket"] = str(self._socket)
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        if self.port:
            return f"redis://{secret}127.0.0.1:{self.port}/0"
        return f"unix://{secret}{self._socket}?db=0"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def client(self) -> redis.Redis:
        """A new blocking client, past every part of Perdure. Close it, or use it in a `with`."""
        return redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0))

    def _command(self) -> list[str]:
        options = [(f"--{name}", *(str(value).split() or [""])) for name, value in self._options.items()]
        return [self._program or binary(), *(part for option in options for part in option)]

    def start(self) -> RedisServer:
        self._process = subprocess.Popen(self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        self._wait_until_ready(self._process)
        return self

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        with self.client as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError as error:
                    if process.poll() is not None or time.monotonic() > deadline:
                        log = self.directory / "redis.log"
                        told = log.read_text()[-2000:] if log.exists() else "(no log)"
                        raise RuntimeError(f"redis-server didn't start: {error}\n{told}") from error
                    time.sleep(0.02)

    def kill(self) -> None:
        """kill -9: what it had not synced to disk is what a crash may lose."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it shut down in its own way. The data stays."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, **options: str | int) -> None:
        """Start again on the same port and data, after `kill` or `stop` or from running."""
        self.stop()
        self._options |= {name.replace("_", "-"): value for name, value in options.items()}
        self.start()

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        if sign is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(STARTUP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
