"""TLS as docs/connections.md has it: by files that the URL names, with the client's own certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Certificates
from contract import check_contract
from redis_server import RedisServer, free_port, programs

from perdure.errors import StoreAccessError
from perdure.store.redis import RedisStore


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture(scope="module")
def port(certificates: Certificates) -> Iterator[int]:
    """Where a server speaks TLS."""
    failures = []
    for program in programs():
        port = free_port()
        server = RedisServer(program=program, **certificates.server_options(port))
        try:
            with server:
                yield port
                return
        except RuntimeError as error:
            failures.append(f"{program}: {str(error).splitlines()[0]}")
    pytest.skip(f"no redis-server on the PATH was built with TLS: {failures}")


def query(certificates: Certificates) -> str:
    files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
    return "&".join(f"{option}={certificates[name]}" for option, name in files.items())


def test_all_that_a_store_does_it_does_over_tls(port: int, certificates: Certificates) -> None:
    check_contract(f"rediss://127.0.0.1:{port}/0?{query(certificates)}")


def test_what_tls_refuses_is_told_with_what_to_look_at(
    port: int, certificates: Certificates, tmp_path: Path
) -> None:
    others = Certificates.make(tmp_path / "others")
    for wrong, says in (
        (f"127.0.0.1:{port}", "ssl_ca_certs"),
        (f"localhost:{port}?{query(certificates)}", "name in its certificate"),
        (f"127.0.0.1:{port}?ssl_ca_certs={others['ca.crt']}", "ssl_ca_certs"),
        (f"127.0.0.1:{port}?ssl_ca_certs=/nowhere/ca.crt", "/nowhere/ca.crt"),
    ):
        with pytest.raises(StoreAccessError, match=says):
            asyncio.run(ask(f"rediss://{wrong}"))


async def ask(url: str) -> None:
    store = RedisStore.from_url(url, timeout=2)
    try:
        await store.server("tls")
    finally:
        await store.close()
