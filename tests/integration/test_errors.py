"""What a server answers in place of OK, and what follows: the table of docs/connections.md, row for row.

A proxy in front of a real server answers so, and the server sees none of it.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxy import Cut, Proxy
from redis_groups import MASTER, Sentinels
from redis_server import RedisServer, free_port

from perdure.engine.journal import Batch
from perdure.errors import StoreAccessError, StoreError, StoreUnavailableError
from perdure.store.base import Acquired, Commit, Message, Renewed, RunStore, Tag
from perdure.store.records import check, digest, frame, input_record
from perdure.store.redis import RedisRunStore, RedisStore
from perdure.store.scripts import script
from perdure.store.session import RunSession

TTL = 10_000
DOCS = Path(__file__).parents[2] / "docs" / "connections.md"
COMMIT = script("commit").sha.encode()

# The code, as a server words it, and part of what the run is told that it waits for.
WAITS = {
    "LOADING": ("LOADING Redis is loading the dataset in memory", "is loading its data"),
    "READONLY": ("READONLY You can't write against a read only replica.", "is a read-only replica"),
    "MASTERDOWN": (
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "without its primary",
    ),
    "CLUSTERDOWN": ("CLUSTERDOWN The cluster is down", "a cluster that is down"),
    "TRYAGAIN": ("TRYAGAIN Multiple keys request during rehashing of slot", "is moving these keys"),
    "BUSY": (
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "busy with a script",
    ),
    "OOM": ("OOM command not allowed when used memory > 'maxmemory'.", "at its maxmemory"),
    "MISCONF": ("MISCONF Redis is configured to save RDB snapshots, but it's unable to", "can't save"),
    "NOREPLICAS": ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
    "NOAUTH": ("NOAUTH Authentication required.", "wants a password"),
    "WRONGPASS": ("WRONGPASS invalid username-password pair or user is disabled.", "refuses the user name"),
    "NOPERM": ("NOPERM User u has no permissions to run the 'evalsha' command", "refuses the command"),
}
# Another may be the one to ask by the next call, so the connection is given up.
MISPLACED = {"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN"}
PERSONS = {"NOAUTH", "WRONGPASS", "NOPERM", "MOVED", "ASK"}  # what waiting alone never mends


@asynccontextmanager
async def behind(proxy: Proxy, form: str = "redis://127.0.0.1:{}") -> AsyncIterator[RedisRunStore]:
    store = RedisStore.from_url(form.format(proxy.port), timeout=5)
    try:
        yield store.run("errors", uuid.uuid4().hex)
    finally:
        await store.close()


async def payloads(run: RunStore) -> list[bytes]:
    loaded = await run.load()
    assert loaded is not None
    return [record.payload for record in check(loaded)[1] if record.seq > 0]


async def begun(run: RunStore, waits: list[StoreUnavailableError | None] | None = None) -> RunSession:
    await run.init(input_record({}))
    session = RunSession(
        run, epoch=1, holder="a", on_waiting=None if waits is None else waits.append, sleep=no_pause
    )
    await session.acquire(TTL)
    await session.load()
    return session


async def no_pause(seconds: float) -> None:
    assert 0.02 <= seconds <= 2
    await asyncio.sleep(0)


def test_the_table_in_the_documentation_has_these_rows() -> None:
    rows = set(re.findall(r"^\| `?([A-Z]+|refused|timeout)`?", DOCS.read_text(), re.MULTILINE))
    assert rows == {*WAITS, "MOVED", "ASK", "NOSCRIPT", "refused", "timeout"}


@pytest.mark.parametrize("code", WAITS)
def test_the_same_bytes_are_sent_again_until_the_server_takes_them(
    redis_server: RedisServer, code: str
) -> None:
    words, told = WAITS[code]

    async def scenario() -> None:
        waits: list[StoreUnavailableError | None] = []
        async with Proxy("127.0.0.1", redis_server.port) as proxy, behind(proxy) as run:
            session = await begun(run, waits)
            await session.commit(Batch(b"1"))
            proxy.answer(COMMIT, f"-{words}\r\n".encode(), times=3)
            proxy.seen.clear()
            before = proxy.connections
            await session.commit(Batch(b"2"))
            assert proxy.connections - before == (3 if code in MISPLACED else 0)
            await session.commit(Batch(b"3"))
            assert len(proxy.seen) == 5 and len(set(proxy.seen[:4])) == 1
            assert await payloads(run) == [b"1", b"2", b"3"]
        assert len(waits) == 2 and waits[1] is None, "a wait is told once, and its end"
        assert told in str(waits[0])

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [*WAITS, "MOVED", "ASK"])
def test_what_a_person_must_mend_is_told_apart_from_what_time_mends(
    redis_server: RedisServer, code: str
) -> None:
    words = WAITS[code][0] if code in WAITS else f"{code} 1 127.0.0.1:1"

    async def scenario() -> None:
        async with Proxy("127.0.0.1", redis_server.port) as proxy, behind(proxy) as run:
            await run.init(input_record({}))
            expected = StoreAccessError if code in PERSONS else StoreUnavailableError
            for name in ("acquire", "renew"):
                proxy.answer(script(name).sha.encode(), f"-{words}\r\n".encode())
                with pytest.raises(expected):
                    if name == "acquire":
                        await run.acquire(1, "a", TTL)
                    else:
                        renewer = run.renewer(5)
                        try:
                            await asyncio.to_thread(renewer.renew, 1, "a", TTL)
                        finally:
                            await asyncio.to_thread(renewer.close)
            assert isinstance(await run.acquire(1, "a", TTL), Acquired)
            assert isinstance(await run.renew(1, "a", TTL), Renewed)

    asyncio.run(scenario())


def test_a_script_that_the_server_forgot_is_brought_without_a_wait(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        waits: list[StoreUnavailableError | None] = []
        async with Proxy("127.0.0.1", redis_server.port) as proxy, behind(proxy) as run:
            session = await begun(run, waits)
            with redis_server.client as client:
                client.script_flush()
            await session.commit(Batch(b"1"))
            proxy.answer(COMMIT, b"-NOSCRIPT No matching script. Please use EVAL.\r\n")
            await session.commit(Batch(b"2"))
            assert await payloads(run) == [b"1", b"2"]
        assert waits == []

    asyncio.run(scenario())


@pytest.mark.parametrize("code", ["MOVED", "ASK"])
def test_a_cluster_sends_a_call_on_and_the_same_bytes_go_there(redis_server: RedisServer, code: str) -> None:
    async def scenario() -> None:
        async with (
            Proxy("127.0.0.1", redis_server.port) as first,
            Proxy("127.0.0.1", redis_server.port) as second,
            behind(first, "redis+cluster://127.0.0.1:{}") as run,
        ):
            await run.init(input_record({}))
            await run.facts()
            facts = script("facts").sha.encode()
            first.answer(facts, f"-{code} 1 127.0.0.1:{second.port}\r\n".encode())
            second.answer(facts, b"", times=0)
            for _ in range(2):
                assert (await run.facts()).meta is not None
            asking = b"*1\r\n$6\r\nASKING\r\n" if code == "ASK" else b""
            assert asking + first.seen[0] == second.seen[0]
            # A slot that moved is remembered, one that is on its way is not.
            assert (len(first.seen), len(second.seen)) == ((1, 2) if code == "MOVED" else (2, 1))

    asyncio.run(scenario())


def test_nodes_that_send_a_call_in_a_circle_are_waited_for(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with (
            Proxy("127.0.0.1", redis_server.port) as proxy,
            behind(proxy, "redis+cluster://127.0.0.1:{}") as run,
        ):
            session = await begun(run)
            proxy.answer(COMMIT, f"-MOVED 1 127.0.0.1:{proxy.port}\r\n".encode(), times=12)
            await session.commit(Batch(b"1"))
            assert len(proxy.seen) == 13
            assert await payloads(run) == [b"1"]

    asyncio.run(scenario())


def test_sentinels_that_name_a_replica_are_not_believed() -> None:
    async def scenario(group: Sentinels) -> None:
        async with Proxy("127.0.0.1", group.sentinels[0].port) as proxy:
            replica = str(group.replica.port)
            proxy.answer(
                b"GET-MASTER-ADDR-BY-NAME",
                f"*2\r\n$9\r\n127.0.0.1\r\n${len(replica)}\r\n{replica}\r\n".encode(),
                times=2,
            )
            store = RedisStore.from_url(f"redis+sentinel://127.0.0.1:{proxy.port}/{MASTER}")
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match="name a slave"):
                    await store.identity("errors")
            assert await store.identity("errors") is None
            with pytest.raises(StoreUnavailableError, match="doesn't know another"):
                await RedisStore.from_url(f"redis+sentinel://127.0.0.1:{proxy.port}/another").identity(
                    "errors"
                )
            await store.close()

    with Sentinels() as group:
        asyncio.run(scenario(group))


def test_a_cluster_is_found_by_any_node_that_its_url_names(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        closed = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
        store = RedisStore.from_url(f"redis+cluster://{closed},127.0.0.1:{redis_server.port}")
        assert await store.identity(uuid.uuid4().hex) is None
        await store.close()
        store = RedisStore.from_url(f"redis+cluster://{closed}")
        with pytest.raises(StoreUnavailableError, match="is it up"):
            await store.identity("errors")

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["refused", "timeout"])
def test_a_server_that_is_away_is_waited_for(how: str) -> None:
    async def scenario(server: RedisServer) -> None:
        waits: list[StoreUnavailableError | None] = []
        store = RedisStore.from_url(server.url, timeout=0.2)
        run = store.run("errors", "away")
        session = await begun(run, waits)
        session._sleep = asyncio.sleep
        if how == "refused":
            server.kill()
        else:
            server.pause()
        commit = asyncio.create_task(session.commit(Batch(b"1")))
        while not waits:
            await asyncio.sleep(0.01)
        assert "is it up" in str(waits[0])
        await asyncio.sleep(0.3)
        assert not commit.done()
        await asyncio.to_thread(server.start if how == "refused" else server.resume)
        await commit
        assert waits[1:] == [None]
        assert await payloads(run) == [b"1"]
        await store.close()

    with RedisServer(appendfsync="always") as server:
        asyncio.run(scenario(server))


# --- the operator's calls, which it makes again until they are answered -----------------------------------


async def _insist(call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except StoreError:
        await call()


CALLS: dict[str, Callable[[RunStore], Awaitable[object]]] = {
    "advance": lambda run: run.advance(2, "Crashed"),
    "finish": lambda run: run.finish(2, b"an outcome"),
    "set_desired": lambda run: run.set_desired("Cancelled"),
    "send": lambda run: run.send(Message("1", "Kind", b"{}")),
    "init": lambda run: run.init(input_record({})),
}


@pytest.mark.parametrize("how", Cut)
@pytest.mark.parametrize("name", CALLS)
def test_an_operators_call_that_was_cut_off_is_done_once(
    redis_server: RedisServer, name: str, how: Cut
) -> None:
    async def scenario() -> None:
        async with Proxy("127.0.0.1", redis_server.port) as proxy, behind(proxy) as run:
            if name != "init":
                await run.init(input_record({}))
            proxy.cut_at(script(name).sha.encode(), how)
            await _insist(lambda: CALLS[name](run))
            # An EVALSHA that was never heard of is followed by no EVAL: make the call once more, unharmed.
            await CALLS[name](run)
            assert proxy.cuts == 1
            facts = await run.facts()
            assert facts.meta is not None
            assert (facts.meta.epoch, facts.meta.outcome, facts.meta.desired, facts.inbox_pending) == {
                "advance": (2, None, "Running", 0),
                "finish": (2, b"an outcome", "Running", 0),
                "set_desired": (1, None, "Cancelled", 0),
                "send": (1, None, "Running", 1),
                "init": (1, None, "Running", 0),
            }[name]
            record = frame(1, 1, b"x")
            if name == "init":
                assert isinstance(await run.acquire(1, "a", TTL), Acquired)
                assert (await run.commit(1, "a", Commit(1, digest(record), record))).tag is Tag.OK

    asyncio.run(scenario())
