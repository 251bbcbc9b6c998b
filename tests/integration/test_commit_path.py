"""Each commit is applied exactly once, whatever happens to the connection or to the server on the way."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from proxy import Cut, Proxy
from redis_server import RedisServer

from perdure.engine.journal import Batch
from perdure.errors import (
    LeaseLostError,
    RunEndedError,
    StateLostError,
    StoreAccessError,
    StoreUnavailableError,
)
from perdure.store import redis as redis_store
from perdure.store.base import Lease, Renewed, StoreFacts, Tag
from perdure.store.link import Link
from perdure.store.records import HEADER_BYTES, check, frame_snapshot, input_record
from perdure.store.redis import RedisRunStore, RedisStore, server_facts
from perdure.store.scripts import script
from perdure.store.session import RunSession

TTL = 10_000
SNAPSHOT = b"state" * 10


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """One that a test may kill: it loses nothing it acknowledged."""
    with RedisServer(appendfsync="always") as server:
        yield server


class Run:
    def __init__(self, store: RedisStore, uid: str) -> None:
        self.store = store
        self.keys: RedisRunStore = store.run("path", uid)
        self.waits: list[StoreUnavailableError | None] = []

    def session(self, epoch: int = 1, holder: str = "a") -> RunSession:
        return RunSession(self.keys, epoch=epoch, holder=holder, on_waiting=self.waits.append)

    async def start(self) -> RunSession:
        await self.keys.init(input_record({}))
        session = self.session()
        await session.acquire(TTL)
        await session.load()
        return session

    async def payloads(self) -> list[bytes]:
        loaded = await self.keys.load()
        assert loaded is not None
        return [record.payload for record in check(loaded)[1] if record.seq > 0]


@asynccontextmanager
async def run_at(url: str, timeout: float = 2.0) -> AsyncIterator[Run]:
    store = RedisStore.from_url(url, timeout=timeout)
    try:
        yield Run(store, uuid.uuid4().hex)
    finally:
        await store.close()


@pytest.mark.parametrize("how", Cut)
@pytest.mark.parametrize("name", ["acquire", "commit", "cut", "release"])
def test_a_cut_connection_at_any_command_loses_and_doubles_nothing(
    redis_server: RedisServer, name: str, how: Cut
) -> None:
    async def scenario() -> None:
        async with (
            Proxy("127.0.0.1", redis_server.port) as proxy,
            run_at(f"redis://127.0.0.1:{proxy.port}") as run,
            run_at(redis_server.url) as direct,
        ):
            await run.keys.init(input_record({}))
            proxy.cut_at(script(name).sha.encode(), how)
            session = run.session()
            try:
                await session.acquire(TTL)
            except StoreUnavailableError:
                assert name == "acquire"
                await session.acquire(TTL)  # the same holder, which a lost reply must not lock out
            await session.load()
            for number in range(1, 4):
                await session.commit(Batch(b"%d" % number, progress=True, published=[b"event %d" % number]))
            await session.commit(Batch(b"4", snapshot=SNAPSHOT))
            if session._cutting is not None:
                await asyncio.wait([session._cutting])
            await session.commit(Batch(b"5", snapshot=SNAPSHOT))
            if session._cutting is not None:
                await asyncio.wait([session._cutting])
            await session.commit(Batch(b"6"))
            assert await session.release("yield")
            assert proxy.cuts == 1

            keys = direct.store.run("path", run.keys._uid)
            loaded, facts = await keys.load(), await keys.facts()
            assert loaded is not None and facts.meta is not None
            payload, records = check(loaded)
            assert (loaded.base, loaded.seq, payload) == (5, 6, SNAPSHOT)
            assert [record.payload for record in records] == [b"6"]
            assert (facts.meta.released, facts.lease, facts.meta.fenced) == ("yield", None, 0)
            async with direct.store.link() as link:
                events = await link.call("XRANGE", keys._keys.events, "-", "+")
            assert [fields[1] for _, fields in events] == [b"event 1", b"event 2", b"event 3"]
            ids = [tuple(map(int, event_id.split(b"-"))) for event_id, _ in events]
            assert ids == sorted(ids) and ids[0][0] == 1 << 40 | 1

    asyncio.run(scenario())


@pytest.mark.parametrize("how", Cut)
def test_the_commit_that_ends_a_run_survives_its_lost_reply(redis_server: RedisServer, how: Cut) -> None:
    async def scenario() -> None:
        async with (
            Proxy("127.0.0.1", redis_server.port) as proxy,
            run_at(f"redis://127.0.0.1:{proxy.port}") as run,
        ):
            session = await run.start()
            proxy.cut_at(script("commit").sha.encode(), how)
            await session.commit(Batch(b"end", outcome=b"{}"))
            assert await run.payloads() == [b"end"]
            assert [type(told) for told in run.waits] == [StoreUnavailableError, type(None)]
            with pytest.raises(RunEndedError):
                await session.commit(Batch(b"more"))

    asyncio.run(scenario())


def test_a_killed_server_loses_nothing_and_the_session_goes_on(own_server: RedisServer) -> None:
    async def scenario() -> None:
        async with run_at(own_server.url) as run:
            session = await run.start()
            committed, kills = 0, 0

            async def work() -> None:
                nonlocal committed
                while kills < 2 or committed < 150:
                    await session.commit(Batch(b"%d" % committed))
                    committed += 1

            async def kill_twice() -> None:
                nonlocal kills
                while kills < 2:
                    threshold = committed + 30
                    while committed < threshold:
                        await asyncio.sleep(0)
                    own_server.kill()
                    before = committed
                    await asyncio.sleep(0.1)
                    assert committed - before <= 1, "nothing is called durable while the store is away"
                    await asyncio.to_thread(own_server.restart)
                    kills += 1

            await asyncio.gather(work(), kill_twice())
            assert await run.payloads() == [b"%d" % number for number in range(committed)]
            assert sum(told is None for told in run.waits) == 2

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_full_server_refuses_a_commit_whole_and_keeps_the_lease() -> None:
    async def scenario(server: RedisServer) -> None:
        async with run_at(server.url) as run:
            session = await run.start()
            await session.commit(Batch(b"1", flight=[("+", "1", "s")]))
            with server.client as client:
                client.config_set("maxmemory", "1")
                before = await run.keys.facts()
                task = asyncio.create_task(
                    session.commit(Batch(b"2", progress=True, published=[b"e"], flight=[("-", "1", "")]))
                )
                while not run.waits:
                    await asyncio.sleep(0.01)
                assert isinstance(run.waits[0], StoreUnavailableError) and "maxmemory" in str(run.waits[0])
                assert (await run.keys.facts()).meta == before.meta, "not a byte of it was taken"
                renewed = await run.keys.renew(1, "a", 60_000)
                assert isinstance(renewed, Renewed), "a full server must not cost the run its lease"
                lease = (await run.keys.facts()).lease
                assert isinstance(lease, Lease) and lease.expires_in > 30
                assert not task.done()
                client.config_set("maxmemory", "0")
                await task
            assert await run.payloads() == [b"1", b"2"]

    with RedisServer(maxmemory_policy="noeviction") as server:
        asyncio.run(asyncio.wait_for(scenario(server), 20))


def test_what_a_store_lost_is_written_again_by_who_still_holds_it(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            session = await run.start()
            await session.commit(Batch(b"1"))
            before = await saved(run)
            await session.commit(Batch(b"2", flight=[("+", "1", "s")]))
            await session.commit(Batch(b"3"))
            await restore(run, before)
            await session.commit(Batch(b"4"))
            assert await run.payloads() == [b"1", b"2", b"3", b"4"]
            meta = (await run.keys.facts()).meta
            assert meta is not None and [entry.step for entry in meta.in_flight] == ["s"]

    asyncio.run(scenario())


def test_a_store_that_forgot_the_takeover_is_told_again(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            zombie = await run.start()
            await zombie.commit(Batch(b"1"))
            before = await saved(run)
            await run.keys.advance(2, "LeaseExpired")
            forgotten_acquire = await saved(run)
            fresh = run.session(2, "b")
            await fresh.acquire(TTL)
            await fresh.load()
            await fresh.commit(Batch(b"2"))
            for lost in (before, forgotten_acquire):
                await restore(run, lost)
                await fresh.commit(Batch(b"more"))
            with pytest.raises(LeaseLostError):
                await zombie.commit(Batch(b"zombie"))
            assert await run.payloads() == [b"1", b"2", b"more", b"more"]

    asyncio.run(scenario())


@pytest.mark.parametrize("zombies", [1, 2, 3, 5])
def test_records_of_another_are_never_taken_for_ones_own(redis_url: str, zombies: int) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            zombie = await run.start()
            await zombie.commit(Batch(b"1"))
            before = await saved(run)
            await run.keys.advance(2, "LeaseExpired")
            fresh = run.session(2, "b")
            await fresh.acquire(TTL)
            await fresh.load()
            for number in (2, 3):
                await fresh.commit(Batch(b"fresh %d" % number))
            await restore(run, before)  # to before the takeover, where the zombie's token is good
            for _ in range(zombies):
                await zombie.commit(Batch(b"zombie"))
            with pytest.raises(StateLostError, match="another holder's stand in their place"):
                await fresh.commit(Batch(b"fresh 4"))
            assert await run.payloads() == [b"1"] + [b"zombie"] * zombies

    asyncio.run(scenario())


def test_a_loss_that_nobody_can_mend_is_told(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            now = 0.0
            session = await run.start()
            session._held._clock = lambda: now
            before = await saved(run)
            for number in range(4):
                now += 2.0
                await session.commit(Batch(b"%d" % number))
            await restore(run, before)
            with pytest.raises(StateLostError, match="went back to seq 0 of this run, which was at 4"):
                await session.commit(Batch(b"5"))
            with pytest.raises(StateLostError):
                await session.commit(Batch(b"6"))

    asyncio.run(scenario())


def test_a_wiped_store_is_not_written_to(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            session = await run.start()
            await run.keys.clean()
            with pytest.raises(StateLostError):
                await session.commit(Batch(b"1"))
            assert (await run.keys.facts()).meta is None

    asyncio.run(scenario())


def test_a_restarted_server_is_noticed_when_it_may_have_lost_something() -> None:
    async def scenario(server: RedisServer) -> tuple[bool, bool]:
        async with run_at(server.url) as run:
            await run.start()
            same = await run.session().acquire(TTL)
            await asyncio.to_thread(server.restart)
            await run.keys.advance(2, "Crashed")  # its reply is the first over a connection made anew
            return same.restarted, (await run.session(2, "b").acquire(TTL)).restarted

    for policy, noticed in (("everysec", True), ("always", False)):
        with RedisServer(appendfsync=policy) as server:
            assert asyncio.run(scenario(server)) == (False, noticed), policy


def test_a_server_that_restarts_while_the_run_is_acquired_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(server: RedisServer) -> None:
        async with run_at(server.url) as run:
            await run.start()
            await run.keys.advance(2, "Crashed")

            async def then_restart(*arguments: Any) -> StoreFacts:
                facts = await server_facts(*arguments)
                await asyncio.to_thread(server.restart)
                return facts

            second = run.session(2, "b")
            with monkeypatch.context() as patch:
                patch.setattr(redis_store, "server_facts", then_restart)
                with pytest.raises(StoreUnavailableError):
                    await second.acquire(TTL)
            assert (await second.acquire(TTL)).restarted

    with RedisServer(appendfsync="everysec") as server:
        asyncio.run(scenario(server))


def test_what_is_wrong_with_a_server_is_said_without_its_password() -> None:
    async def told(url: str) -> Exception:
        async with run_at(url, timeout=0.5) as run:
            with pytest.raises((StoreUnavailableError, StoreAccessError)) as caught:
                await run.keys.facts()
            with pytest.raises(type(caught.value)):
                await asyncio.to_thread(run.keys.renewer(0.5).renew, 1, "a", TTL)
            return caught.value

    async def scenario(server: RedisServer) -> None:
        where = f"127.0.0.1:{server.port}"
        missing = await told(f"redis://{where}")
        wrong = await told(f"redis://:s3cret-wrong@{where}")
        for error in (missing, wrong):
            assert isinstance(error, StoreAccessError) and where in str(error)
            assert "s3cret" not in str(error)
        server.pause()
        try:
            silent = await told(server.url)
        finally:
            server.resume()
        assert isinstance(silent, StoreUnavailableError) and where in str(silent)
        server.kill()
        gone = await told(server.url)
        assert isinstance(gone, StoreUnavailableError) and "is it up" in str(gone)
        assert "s3cret" not in str(silent) + str(gone)

    with RedisServer(requirepass="s3cret") as server:
        asyncio.run(scenario(server))


def test_a_url_that_is_none_is_refused_without_repeating_it() -> None:
    for url in ("http://u:s3cret@host", "redis://u:s3/cret@host:nope", "s3cret"):
        with pytest.raises(ValueError, match="must look like") as caught:
            RedisStore.from_url(url)
        assert "s3" not in str(caught.value)


def test_a_store_on_a_unix_socket() -> None:
    async def scenario(url: str) -> None:
        async with run_at(url) as run:
            session = await run.start()
            await session.commit(Batch(b"1"))
            assert await run.payloads() == [b"1"]

    with RedisServer(unix=True) as server:
        asyncio.run(scenario(server.url))


def test_an_id_below_the_streams_last_does_not_tear_a_commit(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            session = await run.start()
            events = run.keys._keys.events
            async with run.store.link() as link:
                await link.call("XADD", events, f"{9 << 40}-3", "event", "of a later epoch")
                await session.commit(Batch(b"1", published=[b"a", b"b"]))
                entries = await link.call("XRANGE", events, "-", "+")
            assert [fields[1] for _, fields in entries] == [b"of a later epoch", b"a", b"b"]
            assert await run.payloads() == [b"1"]

    asyncio.run(scenario())


def test_a_snapshot_that_stands_never_expires(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            await run.start()
            assert (await run.keys.cut(1, "a", 0, frame_snapshot(0, 1, SNAPSHOT))).ok
            async with run.store.link() as link:
                assert await link.call("PTTL", run.keys._keys.snap) == -1
                # One that was never cut in, because its runner died, must not stay for ever.
                await run.keys.advance(2, "Crashed")
                assert (await run.keys.cut(1, "a", 1, frame_snapshot(1, 1, SNAPSHOT))).tag is Tag.FENCED
                assert await link.call("PTTL", run.keys._keys.snap_next) > 0

    asyncio.run(scenario())


def test_a_snapshot_whose_run_is_removed_under_way_leaves_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PIECE_BYTES", 64)

    async def scenario() -> None:
        async with run_at(redis_url) as run:
            await run.start()
            call = Link.call

            async def removed_before(link: Link, *arguments: Any, **options: Any) -> Any:
                if arguments[0] == "APPEND":
                    await other.clean()
                return await call(link, *arguments, **options)

            other = run.store.run("path", run.keys._uid)
            with monkeypatch.context() as patch:
                patch.setattr(Link, "call", removed_before)
                assert not (await run.keys.cut(1, "a", 0, frame_snapshot(0, 1, SNAPSHOT * 10))).ok
            async with run.store.link() as link:
                assert await link.call("EXISTS", *run.keys._keys.all()) == 0

    asyncio.run(scenario())


def test_a_zombies_upload_is_not_cut_in(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            session = await run.start()
            await session.commit(Batch(b"1"))
            await run.keys.advance(2, "LeaseExpired")
            await run.session(2, "b").acquire(TTL)
            zombies, fresh = frame_snapshot(1, 1, b"stale"), frame_snapshot(1, 2, b"fresh")
            keys = run.keys._keys
            async with run.store.link() as link:
                # Between the upload of the holder and its cut.
                await link.call("SET", keys.snap_next, zombies)
                answer = await link.script(
                    script("cut"),
                    [keys.meta, keys.log, keys.snap, keys.snap_next],
                    [2, "b", 1, fresh[:HEADER_BYTES], len(fresh)],
                )
            assert answer == [b"CONFLICT", 1]
            assert await run.payloads() == [b"1"]
            assert (await run.keys.cut(2, "b", 1, fresh)).ok

    asyncio.run(scenario())


def test_a_run_half_of_which_was_evicted_is_not_begun_anew(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            session = await run.start()
            await session.commit(Batch(b"1"))
            async with run.store.link() as link:
                await link.call("DEL", run.keys._keys.meta)
            assert (await run.keys.init(input_record({}))).tag is Tag.CONFLICT
            with pytest.raises(StateLostError):
                await session.commit(Batch(b"2"))

    asyncio.run(scenario())


def test_a_call_that_was_given_up_leaves_no_reply_for_the_next_one(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with run_at(redis_server.url) as run:
            link = run.store.new_link()
            assert await link.call("ECHO", "0") == b"0"
            for number in range(1, 20):
                late = asyncio.create_task(link.call("ECHO", "late"))
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                late.cancel()
                await asyncio.wait([late])
                assert await link.call("ECHO", str(number)) == str(number).encode()

    asyncio.run(scenario())


def test_a_key_of_another_type_refuses_a_commit_whole(redis_url: str) -> None:
    async def scenario() -> None:
        async with run_at(redis_url) as run:
            session = await run.start()
            async with run.store.link() as link:
                await link.call("SET", run.keys._keys.events, "not a stream")
            with pytest.raises(Exception, match="WRONGTYPE"):
                await session.commit(Batch(b"1", published=[b"a"]))
            assert await run.payloads() == []

    asyncio.run(scenario())


# --- a store that goes back, as one does that had not synced ---------------------------------------------


async def saved(run: Run) -> dict[str, bytes | None]:
    """All of the run's keys as they are now."""
    async with run.store.link() as link:
        return {key: await link.call("DUMP", key) for key in run.keys._keys.all()}


async def restore(run: Run, state: dict[str, bytes | None]) -> None:
    async with run.store.link() as link:
        for key, value in state.items():
            if value is None:
                await link.call("DEL", key)
            else:
                await link.call("RESTORE", key, 0, value, "REPLACE")
