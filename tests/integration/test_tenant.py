"""The user of docs/connections.md can do all that runs need, and has no right that nothing uses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import check_contract
from redis_server import RedisServer
from rich.console import Console

from perdure.cli.doctor import USABLE, examine
from perdure.control.observation import StoreState
from perdure.control.storeside import observe_store
from perdure.control.storewatch import StoreWatch, system_clock
from perdure.errors import StoreAccessError
from perdure.store import dump
from perdure.store.base import Acquired
from perdure.store.durability import NOT_TOLD
from perdure.store.records import frame_snapshot, input_record
from perdure.store.redis import RedisStore

DOCS = Path(__file__).parents[2] / "docs" / "connections.md"
NAMESPACE = "contract"
TTL = 10_000


def documented() -> list[str]:
    """The arguments of ACL SETUSER, for this test's namespace."""
    (block,) = re.findall(r"^```\nACL SETUSER (.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return [word.replace("team:", f"{NAMESPACE}:") for word in block.split()]


def tenant(server: RedisServer, *changes: str) -> str:
    """The tenant's URL; `changes` come on top of the documented rights."""
    with server.client as client:
        client.execute_command("ACL", "SETUSER", *documented(), *changes)
    return server.url.replace("redis://", "redis://team:PASSWORD@")


@pytest.fixture
def server(server_program: str) -> Iterator[RedisServer]:
    with RedisServer(program=server_program) as started:
        yield started


async def seen(url: str) -> Any:
    """What an operator sees of a run that it has just made."""
    store = RedisStore.from_url(url)
    try:
        run = store.run(NAMESPACE, "seen")
        await run.init(input_record({}))
        assert isinstance(await run.acquire(1, "a", TTL), Acquired)
        assert (await run.cut(1, "a", 0, frame_snapshot(0, 1, b"x" * 600_000))).ok
        found = await dump.read(store, NAMESPACE, "seen")
        assert found is not None
        await store.run(NAMESPACE, "copy").clean()
        assert await dump.write(store, NAMESPACE, "copy", found)
        assert not await dump.write(store, NAMESPACE, "copy", found), "it is there already"
        return await observe_store(
            store,
            StoreWatch(system_clock()),
            namespace=NAMESPACE,
            uid="seen",
            expected_id="",
            lease_seconds=10,
            clock=system_clock,
        )
    finally:
        await store.close()


def test_the_documented_user_can_do_all_and_no_right_of_its_is_idle(
    server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = tenant(server)
    check_contract(url)
    view = asyncio.run(seen(url))
    assert (view.state, bool(view.store_id)) == (StoreState.GRACE, True)
    assert examine(url, NAMESPACE, Console(width=60)) == USABLE, capsys.readouterr().out
    with server.client as client:
        refused = [entry for entry in client.acl_log() if entry["object"] not in ("client|setinfo", "client")]
        assert refused == []
        used = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
        listed = {word.removeprefix("+") for word in documented() if word.startswith("+")}
        # Before Redis 7 a subcommand isn't counted by itself.
        assert {name for name in listed if name not in used and name.partition("|")[0] not in used} == set()


@pytest.mark.parametrize("call", ["key", "channel", "command"])
def test_the_documented_user_can_do_nothing_else(server: RedisServer, call: str) -> None:
    async def scenario() -> None:
        store = RedisStore.from_url(tenant(server))
        commands = {
            "key": ("GET", "perdure:other:store"),
            "channel": ("PUBLISH", "perdure:other:runs", "x"),
            "command": ("KEYS", "perdure:contract:*"),
        }
        async with store.link() as link:
            with pytest.raises(StoreAccessError):
                await link.call(*commands[call])
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("forbidden", [("-config",), ("-config", "-info"), ("-config", "-info", "-role")])
def test_a_service_that_tells_nothing_of_itself_is_worked_with(
    server: RedisServer, forbidden: tuple[str, ...]
) -> None:
    view = asyncio.run(seen(tenant(server, *forbidden)))
    assert view.state is StoreState.GRACE
    assert view.doubts == (NOT_TOLD,)
