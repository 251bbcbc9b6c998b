"""What every suite shares: one real Redis for a session of tests, each with runs of its own."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, programs


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Shared: give a run a uid of its own, and don't stop the server. Who must, starts another."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@functools.cache
def _servers() -> tuple[dict[str, str], str]:
    """Programs by what they are, "redis 7.0" for one, and why there aren't more."""
    found = list(programs())
    fetched = subprocess.run(
        [Path(__file__).parent / "servers" / "fetch"], capture_output=True, text=True, check=False
    )
    if fetched.returncode == 0:
        found += map(str, sorted(Path(fetched.stdout.strip(), "bin").iterdir()))
    versions: dict[str, str] = {}
    for program in found:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        kind, version = re.match(r"(\w+) server v=(\d+\.\d+)", told, re.IGNORECASE).groups()  # type: ignore[union-attr]
        versions.setdefault(f"{kind.lower()} {version}", program)
    return versions, fetched.stderr.strip()[-500:]


@pytest.fixture(params=["redis 6.2", "redis 7.0", "redis 8.0", "valkey 8.1"])
def server_program(request: pytest.FixtureRequest) -> str:
    """Of each version that is supported and can be had here."""
    versions, why = _servers()
    if request.param not in versions:
        pytest.skip(f"no {request.param} on the PATH, and it can't be fetched: {why or 'Debian has another'}")
    return versions[request.param]
