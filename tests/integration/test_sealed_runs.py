"""Runs whose state is compressed and encrypted, on a real Redis: nothing shows, keys are rotated, none is missing unsaid."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from chaos.bare import BareRun

from perdure import Checkpoint, Context, Workflow, step
from perdure.errors import IncompatibleError
from perdure.events import Event, StartEvent, StopEvent
from perdure.store import dump as dumps
from perdure.store import session as session_module
from perdure.store.redis import RedisStore

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
WORD = "very-secret-word"


class Next(Event):
    said: str


class Keeps(Workflow):
    stop: asyncio.Event

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Next:
        await ctx.store.set("said", [ev.said] * 2000)
        for number in range(20):
            await ctx.store.append("numbers", number)
        return Next(said=ev.said)

    @step
    async def end(self, ctx: Context, ev: Next) -> StopEvent:
        if not await ctx.store.get("reached", default=False):
            await ctx.store.set("reached", True)
            type(self).stop.set()
            await asyncio.sleep(60)
        said = await ctx.store.get("said")
        return StopEvent(result=[len(said), set(said) == {ev.said}])


def on_redis(url: str, scenario: Callable[[RedisStore, str], Awaitable[None]]) -> None:
    async def go() -> None:
        store = RedisStore.from_url(url)
        try:
            await scenario(store, secrets.token_hex(4))
        finally:
            await store.close()

    asyncio.run(go())


async def cut_off(store: RedisStore, run_id: str, checkpoint: Checkpoint, *, epoch: int = 2) -> dumps.Dump:
    """Run it until its last step has begun, leave it there; what is stored."""
    Keeps.stop = asyncio.Event()
    handler = Keeps().run(run_id=run_id, store=store, checkpoint=checkpoint, said=WORD)
    await Keeps.stop.wait()
    run = store.run("local", run_id)
    while (meta := (await run.facts()).meta) is None or meta.base < 0:
        await asyncio.sleep(0.02)
    await run.advance(epoch, "Crashed")
    (await handler._live()).loop.stop(None, None)
    dump = await dumps.read(store, "local", run_id)
    assert dump is not None
    return dump


@pytest.fixture(autouse=True)
def early_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SNAPSHOT_FLOOR", 1000)


def stored(dump: dumps.Dump) -> list[bytes]:
    return [dump.snapshot or b"", *dump.records]


def test_nothing_of_the_state_shows_and_it_is_resumed(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        checkpoint = Checkpoint(compression="Zstd", encryption_keys=f"old:{OLD}")
        dump = await cut_off(store, run_id, checkpoint)
        assert dump.snapshot is not None
        assert not any(WORD.encode() in data or b"said" in data for data in stored(dump))
        result = await Keeps().run(run_id=run_id, store=store, checkpoint=checkpoint, said=WORD)
        assert result == [2000, True]

    on_redis(redis_url, scenario)


def test_compression_makes_a_state_small_and_may_be_changed_at_any_time(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        plain = await cut_off(store, run_id, Checkpoint())
        packed = await cut_off(store, f"{run_id}-z", Checkpoint(compression="Zstd"))
        assert sum(map(len, stored(packed))) < sum(map(len, stored(plain))) / 10
        for name, checkpoint in ((run_id, Checkpoint(compression="Zstd")), (f"{run_id}-z", Checkpoint())):
            assert await Keeps().run(run_id=name, store=store, checkpoint=checkpoint, said=WORD) == [
                2000,
                True,
            ]

    on_redis(redis_url, scenario)


def test_keys_are_rotated_between_two_holders(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        before = await cut_off(store, run_id, Checkpoint(encryption_keys=f"old:{OLD}"))
        rotated = Checkpoint(encryption_keys=f"new:{NEW},old:{OLD}")
        assert await Keeps().run(run_id=run_id, store=store, checkpoint=rotated, said=WORD) == [2000, True]
        after = await dumps.read(store, "local", run_id)
        assert after is not None
        assert all(b"\x03old" in data for data in stored(before))
        assert all(b"\x03new" in data for data in after.records[len(before.records) :])

    on_redis(redis_url, scenario)


def test_without_its_key_a_run_is_not_taken_up_and_left_as_it_is(redis_url: str) -> None:
    async def scenario(store: RedisStore, run_id: str) -> None:
        sealed = Checkpoint(encryption_keys=f"old:{OLD}")
        before = await cut_off(store, run_id, sealed)
        for keys, told in (("", "none"), (f"new:{NEW}", "new")):
            with pytest.raises(IncompatibleError, match=rf"encrypted by key 'old', .* given \({told}\)"):
                await Keeps().run(
                    run_id=run_id, store=store, checkpoint=Checkpoint(encryption_keys=keys), said=WORD
                )
            after = await dumps.read(store, "local", run_id)
            assert after is not None and stored(after) == stored(before)
            assert "outcome" not in after.fields
            await release(store, run_id)
        assert await Keeps().run(run_id=run_id, store=store, checkpoint=sealed, said=WORD) == [2000, True]

    on_redis(redis_url, scenario)


async def release(store: RedisStore, run_id: str) -> None:
    """The lease of who could not read it runs out; here it needn't be waited for."""
    run = store.run("local", run_id)
    meta = (await run.facts()).meta
    assert meta is not None
    await run.advance(meta.epoch + 1, "Crashed")


def test_a_runner_without_the_key_says_so_and_ends_as_one_that_can_not_work(
    redis_url: str, tmp_path: Path
) -> None:
    run = BareRun(redis_url, tmp_path, "habits:Counts", notes=str(tmp_path / "notes"), count=60, pause=0.05)
    try:
        env = {"PERDURE_ENCRYPTION_KEYS": f"k:{OLD}", "PERDURE_COMPRESSION": "Zstd"}
        runner = run.start(env=env)
        while (meta := run.facts().meta) is None or meta.seq < 3:
            pass
        run.signal_all(runner, 9)
        runner.wait()
        run.take_over()
        assert run.start().wait(60) == 77, run.log.read_text()
        words = run.last_words()
        assert words["reason"] == "Incompatible" and "encrypted by key 'k'" in words["message"]
        run.take_over()
        assert run.start(env={"PERDURE_ENCRYPTION_KEYS": "k:short"}).wait(60) == 77
        assert "key 1 is not base64" in run.last_words()["message"] or "bytes" in run.last_words()["message"]
        run.take_over()
        assert run.start(env=env).wait(60) == 0, run.log.read_text()
        outcome = run.outcome()
        assert outcome is not None and outcome.result == 60
    finally:
        run.close()


def test_the_history_of_an_encrypted_run_is_read_with_its_key_alone(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., tuple[int, str]]
) -> None:
    name = secrets.token_hex(4)

    async def scenario(store: RedisStore, _: str) -> None:
        await cut_off(store, name, Checkpoint(compression="Zstd", encryption_keys=f"old:{OLD}"))

    on_redis(redis_url, scenario)
    where = ("--redis", redis_url, "--dir", str(tmp_path))
    status, told = cli("history", name, *where)
    assert status == 1 and "encrypted by key 'old'" in told
    monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"old:{OLD}")
    status, told = cli("history", name, *where)
    assert status == 0 and "reached" in told
