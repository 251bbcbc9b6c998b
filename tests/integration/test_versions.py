"""The store's contract on each server that is supported: alone, behind sentinels, and as a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from contract import check_contract
from redis_groups import Cluster, Sentinels
from redis_server import RedisServer

KINDS: dict[str, Callable[[str], RedisServer | Sentinels | Cluster]] = {
    "alone": lambda program: RedisServer(program=program),
    "sentinels": Sentinels,
    "cluster": Cluster,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_supported_server_keeps_the_contract(server_program: str, kind: str) -> None:
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(KINDS[kind](server_program))
        check_contract(server.url)
