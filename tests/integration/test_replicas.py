"""`checkpoint.replicas`: a commit counts once a real replica has it, and no sooner."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis_server import RedisServer

from perdure import Checkpoint, Context, Workflow, step
from perdure.engine.journal import Batch
from perdure.errors import StoreUnavailableError
from perdure.events import StartEvent, StopEvent
from perdure.store.keys import RunKeys
from perdure.store.records import input_record
from perdure.store.redis import RedisStore
from perdure.store.session import RunSession

NAMESPACE = "replicated"


@pytest.fixture
def pair(server_program: str) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica, which has caught up."""
    with RedisServer(program=server_program) as primary, RedisServer(program=server_program) as replica:
        with replica.client as client:
            client.replicaof("127.0.0.1", primary.port)
        until_attached(primary)
        yield primary, replica


def until_attached(primary: RedisServer, count: int = 1) -> None:
    give_up = time.monotonic() + 60
    with primary.client as client:
        while client.wait(count, 100) != count or client.info("replication")["connected_slaves"] != count:
            assert time.monotonic() < give_up, "the replica didn't come"
            time.sleep(0.02)


class Told(list[str]):
    """What the session says of waiting, "" when that is over."""

    def __call__(self, error: StoreUnavailableError | None) -> None:
        self.append(str(error or ""))


@asynccontextmanager
async def held(url: str, told: Told) -> AsyncIterator[tuple[RunSession, str]]:
    store, uid = RedisStore.from_url(url), secrets.token_hex(4)
    run = store.run(NAMESPACE, uid)
    await run.init(input_record({}))
    session = RunSession(run, epoch=1, holder="a", replicas=1, on_waiting=told)
    await session.acquire(60_000)
    await session.load()
    try:
        yield session, uid
    finally:
        await session.settle()
        await store.close()


def seq_at(server: RedisServer, uid: str) -> int:
    with server.client as client:
        return int(client.hget(RunKeys.of(NAMESPACE, uid).meta, "seq") or -1)


async def until(holds: object, what: str) -> None:
    give_up = time.monotonic() + 60
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < give_up, what
        await asyncio.sleep(0.02)


def test_what_was_committed_is_on_the_replica_at_once(pair: tuple[RedisServer, RedisServer]) -> None:
    async def scenario() -> None:
        told = Told()
        async with held(pair[0].url, told) as (session, uid):
            for seq in range(1, 101):
                await session.commit(Batch(b"x"))
                assert seq_at(pair[1], uid) == seq
        assert told == []

    asyncio.run(scenario())


def test_without_its_replica_a_run_waits_and_says_so_and_goes_on_with_it(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    primary, replica = pair

    async def scenario() -> None:
        told = Told()
        async with held(primary.url, told) as (session, uid):
            await session.commit(Batch(b"1"))
            replica.kill()
            second = asyncio.ensure_future(session.commit(Batch(b"2")))
            await until(lambda: told, "nobody was told")
            assert "has the commit, and 0 of its replicas, where checkpoint.replicas is 1" in told[0]
            assert seq_at(primary, uid) == 2 and not second.done()
            replica.start()
            with replica.client as client:
                client.replicaof("127.0.0.1", primary.port)
            await second
            assert told[-1] == ""
            assert seq_at(replica, uid) == 2
            with primary.client as client:
                assert client.llen(RunKeys.of(NAMESPACE, uid).log) == 3, (
                    "it was sent again, and is there once"
                )

    asyncio.run(scenario())


def test_a_connection_that_is_new_waits_for_what_an_older_one_wrote(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    primary, replica = pair

    async def scenario() -> None:
        told = Told()
        async with held(primary.url, told) as (session, uid):
            await session.commit(Batch(b"1"))
            replica.pause()  # connected, and silent
            second = asyncio.ensure_future(session.commit(Batch(b"2")))
            await until(lambda: seq_at(primary, uid) == 2, "it never came to the primary")
            with primary.client as client:
                client.client_kill_filter(_type="normal", skipme=True)
            await until(lambda: told, "nobody was told")
            await asyncio.sleep(1.5)  # longer than one WAIT: a wrong answer has had its time
            assert not second.done()
            replica.resume()
            await second
            assert seq_at(replica, uid) == 2

    asyncio.run(scenario())


def test_a_failover_to_the_replica_loses_nothing_that_was_committed(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    primary, replica = pair

    async def scenario() -> None:
        told = Told()
        async with held(primary.url, told) as (session, uid):
            for number in range(20):
                await session.commit(Batch(str(number).encode()))
            replica.pause()
            lost = asyncio.ensure_future(session.commit(Batch(b"never confirmed")))
            await until(lambda: seq_at(primary, uid) == 21, "it never came to the primary")
            assert not lost.done(), "on the side that is cut off from its replica nothing goes on"
            primary.kill()
            replica.resume()
            with replica.client as client:
                client.replicaof("NO", "ONE")
            assert seq_at(replica, uid) >= 20
            lost.cancel()

    asyncio.run(scenario())


def test_a_program_may_ask_for_replicas(pair: tuple[RedisServer, RedisServer]) -> None:
    class Writes(Workflow):
        @step
        async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.store.set("done", True)
            return StopEvent(result="done")

    async def scenario() -> None:
        store = RedisStore.from_url(pair[0].url)
        run = Writes().run(run_id="r", store=store, checkpoint=Checkpoint(replicas=1))
        assert await asyncio.wait_for(run, 60) == "done"
        late = Writes().run(run_id="late", store=store, checkpoint=Checkpoint(replicas=2))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late, 2)  # there is one only
        (await late._live()).loop.stop(None, None)
        await store.close()

    asyncio.run(scenario())
