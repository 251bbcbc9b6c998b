"""What real servers say of themselves comes out as it is: in the facts, in `perdure doctor`, on the laptop."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
from redis_server import RedisServer
from rich.console import Console

from perdure.cli.doctor import UNUSABLE, USABLE, examine
from perdure.store.durability import doubts, judge
from perdure.store.records import input_record
from perdure.store.redis import RedisStore

LEASE = 10.0


def verdict(url: str) -> tuple[str, str]:
    async def ask() -> tuple[str, str]:
        store = RedisStore.from_url(url)
        try:
            said = judge(doubts(await store.server("local"), LEASE))
        finally:
            await store.close()
        return said.status, said.reason

    return asyncio.run(ask())


def doctor(url: str | None, capsys: pytest.CaptureFixture[str], namespace: str = "local") -> tuple[int, str]:
    status = examine(url, namespace, Console(width=60))
    return status, capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"appendfsync": "always"}, ("True", "EveryWriteSynced")),
        ({"appendfsync": "everysec"}, ("False", "UpToOneSecond")),
        ({"appendfsync": "no"}, ("False", "SyncLeftToSystem")),
        ({"appendonly": "no"}, ("False", "NoAppendOnlyFile")),
        (
            {"appendfsync": "always", "maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"},
            ("False", "EvictsKeys"),
        ),
        ({"appendfsync": "always", "rename-command": "CONFIG ''"}, ("Unknown", "NotTold")),
        ({"appendonly": "no", "rename-command": "CONFIG ''"}, ("False", "NoAppendOnlyFile")),
    ],
)
def test_a_real_server_is_seen_as_it_is_set(options: dict[str, str], expected: tuple[str, str]) -> None:
    renamed = options.pop("rename-command", "")
    with RedisServer(**options) as server:
        url = server.url
        if renamed:
            # As services do: the user of the runs may not, though others may.
            with server.client as client:
                client.execute_command("ACL", "SETUSER", "default", "-config")
        assert verdict(url) == expected


def test_a_primary_with_replicas_says_what_a_failover_may_lose() -> None:
    with (
        RedisServer(appendfsync="always") as primary,
        RedisServer() as replica,
        primary.client as client,
        replica.client as second,
    ):
        second.replicaof("127.0.0.1", primary.port)
        until = time.monotonic() + 60
        while client.info("replication")["connected_slaves"] == 0:
            assert time.monotonic() < until, "the replica never came"
            time.sleep(0.02)
        assert verdict(primary.url) == ("False", "SplitBrainPossible")
        client.config_set("min-replicas-max-lag", 5)
        client.config_set("min-replicas-to-write", 1)
        assert verdict(primary.url) == ("False", "AsynchronousReplicas")
        client.execute_command("ACL", "SETUSER", "default", "-config")
        assert verdict(primary.url) == ("False", "AsynchronousReplicas")


def test_the_doctor_has_five_lines_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer(appendfsync="always") as server:
        status, told = doctor(server.url, capsys)
        with server.client as client:
            assert client.keys("*") == []
    lines = told.splitlines()
    assert status == USABLE
    assert [line.split()[0] for line in lines] == ["server", "durable", "memory", "rights", "speed"]
    assert lines[1] == "durable  yes (EveryWriteSynced)"


def test_the_doctor_looks_at_the_redis_that_would_be_embedded(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = doctor(None, capsys)
    assert (status, len(told.splitlines())) == (USABLE, 5)
    assert "no (UpToOneSecond)" in told


def test_the_doctor_says_which_right_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer() as server:
        with server.client as client:
            client.execute_command(
                "ACL",
                "SETUSER",
                "tenant",
                "on",
                ">secret",
                "~perdure:team:*",
                "resetchannels",
                "&perdure:team:*",
                "+@all",
            )
        url = server.url.replace("redis://", "redis://tenant:secret@")
        assert doctor(url, capsys, "team")[0] == USABLE
        status, told = doctor(url, capsys, "other")
    assert status == UNUSABLE
    assert "runs of namespace other can't work here" in told
    assert "secret" not in told


def test_a_run_on_a_redis_that_may_lose_something_begins_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from perdure.cli.main import main

    monkeypatch.chdir(tmp_path)
    Path("flow.py").write_text(
        "from perdure import Workflow, step\nfrom perdure.events import StartEvent, StopEvent\n"
        "class Flow(Workflow):\n    @step\n    async def only(self, ev: StartEvent) -> StopEvent:\n"
        "        return StopEvent(result='done')\n"
    )
    with RedisServer(appendonly="no") as server:
        monkeypatch.setattr(sys, "argv", ["perdure", "run", "flow.py:Flow", "--redis", server.url])
        with pytest.raises(SystemExit) as ended:
            main()
        first = capsys.readouterr().out.splitlines()[0]
    assert not ended.value.code
    assert first.startswith(f"Warning: Redis at 127.0.0.1:{server.port}: appendonly no")
    assert first.endswith("(NoAppendOnlyFile)")


def test_a_program_and_a_runner_log_it_once(caplog: pytest.LogCaptureFixture) -> None:
    async def begin(url: str) -> None:
        store = RedisStore.from_url(url)
        for uid in ("one", "two"):
            run = store.run("local", uid)
            await run.init(input_record({}))
            await run.acquire(1, "holder", 10_000)
        await store.close()

    with RedisServer(appendfsync="always") as server:
        asyncio.run(begin(server.url))
        assert caplog.messages == []
        with server.client as client:
            client.flushall()
            client.config_set("appendonly", "no")
        asyncio.run(begin(server.url))
    assert len(caplog.messages) == 1
    assert "appendonly no" in caplog.messages[0]
