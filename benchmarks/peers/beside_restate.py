"""A Restate server and the service that it calls, with its log synced to the disk at each write, as it comes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from benchmarks import peers

START_SECONDS = 60

_ingress: ContextVar[int] = ContextVar("ingress")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def server() -> Iterator[None]:
    """While it lasts there is a server that knows the chain."""
    ingress, admin, node, service = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", ignore_cleanup_errors=True) as folder:
        settings = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_DEFAULT_NUM_PARTITIONS": "1",
        }
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes = [
            subprocess.Popen(
                [str(peers.restate_server()), "--no-logo", "--base-dir", folder],
                env=os.environ | settings,
                **quiet,
            ),
            subprocess.Popen(
                [str(peers.python()), str(peers.SCRIPTS / "restate_chain.py"), str(service)], **quiet
            ),
        ]
        token = _ingress.set(ingress)
        try:
            _until_known(admin, service)
            yield
        finally:
            _ingress.reset(token)
            for process in processes:
                process.kill()
                process.wait()


def microseconds_a_step(steps: int) -> float:
    """A chain's, as its caller sees it."""
    began = time.perf_counter()
    _post(f"http://127.0.0.1:{_ingress.get()}/Chain/run", steps)
    return (time.perf_counter() - began) / steps * 1e6


def _until_known(admin: int, service: int) -> None:
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            _post(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{service}"})
            microseconds_a_step(1)
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)


def _post(url: str, body: Any) -> None:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()
