"""A state that isn't what was written, or is another version's: told with what to do, and left as it is. On a real Redis."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from chaos.bare import BareRun
from corpus import flows
from corpus.case import HERE, Case
from corpus.resume import resume
from pydantic import BaseModel

from perdure import Context, step
from perdure.errors import CheckpointCorruptError, IncompatibleError
from perdure.events import StopEvent
from perdure.store import dump as dumps
from perdure.store.base import RunStore
from perdure.store.redis import RedisStore

CUT = Case.read(HERE / "1" / "fans-out-cut")
LOG = Case.read(HERE / "1" / "fans-out-log")
NAMESPACE = "corpus"


def on_redis(url: str, scenario: Callable[[RedisStore, str], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        store = RedisStore.from_url(url)
        try:
            return await scenario(store, secrets.token_hex(8))
        finally:
            await store.close()

    return asyncio.run(go())


async def put(case: Case, store: RedisStore, uid: str) -> RunStore:
    assert await dumps.write(store, NAMESPACE, uid, case.dump())
    return store.run(NAMESPACE, uid)


async def refused(case: Case, store: RedisStore, uid: str, error: type[Exception]) -> str:
    """Why it wasn't taken up; fails if anything of its state was changed meanwhile."""
    run = await put(case, store, uid)
    with pytest.raises(error) as told:
        await resume(case, run)
    left = await dumps.read(store, NAMESPACE, uid)
    assert left is not None
    assert (left.snapshot, list(left.records)) == (case.loaded.snapshot, case.loaded.records)
    assert left.fields["seq"] == str(case.loaded.seq).encode() and "outcome" not in left.fields
    return str(told.value)


def changed(case: Case, part: str, index: int, change: Callable[[bytes], bytes]) -> Case:
    loaded = case.loaded
    if part == "snapshot":
        assert loaded.snapshot is not None
        loaded = dataclasses.replace(loaded, snapshot=change(loaded.snapshot))
    else:
        records = list(loaded.records)
        records[index] = change(records[index])
        loaded = dataclasses.replace(loaded, records=records)
    return dataclasses.replace(case, loaded=loaded)


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize("case", [CUT, LOG], ids=["snapshot and log", "log alone"])
def test_what_was_not_damaged_goes_on(redis_url: str, case: Case) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        outcome = await resume(case, await put(case, store, uid))
        assert outcome["result"]["totals"] == case.result["totals"]

    on_redis(redis_url, scenario)


def test_any_flipped_byte_is_found_and_nothing_is_touched(redis_url: str) -> None:
    """Each byte of both headers, and some of each body."""

    async def scenario(store: RedisStore, uid: str) -> None:
        assert CUT.loaded.snapshot is not None
        sizes = {"snapshot": len(CUT.loaded.snapshot), "record": len(CUT.loaded.records[0])}
        for part, size in sizes.items():
            for at in [*range(34), *range(34, size, max(1, size // 40)), size - 1]:
                case = changed(CUT, part, 0, flip(at))
                # The third byte is the format's: that one is another version's, for all that can be known.
                error = IncompatibleError if at == 2 else CheckpointCorruptError
                told = await refused(case, store, f"{uid}-{part}-{at}", error)
                assert part in told

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("snapshot", lambda data: data[:-5], "cut short or added to"),
        ("record", lambda data: data + b"x", "cut short or added to"),
        ("record", lambda data: data[:10], "fewer than its header"),
        ("record", lambda data: CUT.loaded.snapshot, "is a snapshot, not a record"),
        ("record", lambda data: LOG.loaded.records[0], "where record 7 of the log belongs stands record 0"),
    ],
)
def test_damage_says_where_and_what(
    redis_url: str, part: str, change: Callable[[bytes], bytes], told: str
) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        message = await refused(changed(CUT, part, 0, change), store, uid, CheckpointCorruptError)
        assert told in message

    on_redis(redis_url, scenario)


def test_a_record_that_is_gone_is_found(redis_url: str) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        short = dataclasses.replace(LOG.loaded, records=LOG.loaded.records[:-1])
        told = await refused(
            dataclasses.replace(LOG, loaded=short), store, f"{uid}-last", CheckpointCorruptError
        )
        assert "the log ends at seq 8, where the store has committed 9" in told
        bare = dataclasses.replace(CUT.loaded, snapshot=None)
        told = await refused(
            dataclasses.replace(CUT, loaded=bare), store, f"{uid}-snap", CheckpointCorruptError
        )
        assert "restore the store from a backup" in told

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("part", ["snapshot", "record"])
def test_another_versions_format_is_incompatible_and_says_what_to_run(redis_url: str, part: str) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        newer = changed(CUT, part, 0, lambda data: data[:2] + bytes([9]) + data[3:])
        told = await refused(newer, store, uid, IncompatibleError)
        assert "has format 9, this Perdure reads 1: run the version that wrote it" in told

    on_redis(redis_url, scenario)


# --- code that isn't what it was ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: no class is remembered by its name."""
    monkeypatch.setattr(flows.Shapes, "_own_serializer", None)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    yield lambda name: monkeypatch.delattr(flows, name)


SHAPES = [Case.read(HERE / "1" / name) for name in ("shapes-cut", "shapes-log")]


@pytest.mark.parametrize("case", SHAPES, ids=["snapshot", "log"])
@pytest.mark.parametrize("gone", ["Square", "Note"])
def test_a_class_that_is_gone_is_named_and_fails_no_step(
    redis_url: str, without: Callable[[str], None], case: Case, gone: str
) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        without(gone)
        run = await put(case, store, uid)
        with pytest.raises(IncompatibleError) as told:
            await resume(case, run)
        assert f"corpus.flows.{gone} is gone" in str(told.value)
        assert "bring the name back" in str(told.value)
        left = await dumps.read(store, NAMESPACE, uid)
        assert left is not None and "outcome" not in left.fields
        assert list(left.records)[: len(case.loaded.records)] == case.loaded.records

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("case", SHAPES, ids=["snapshot", "log"])
def test_with_the_class_back_the_run_goes_on(redis_url: str, case: Case) -> None:
    async def scenario(store: RedisStore, uid: str) -> None:
        run = await put(case, store, uid)
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(flows, "Square")
            with pytest.raises(IncompatibleError):
                await resume(case, run)
        flows.Shapes._own_serializer = None
        assert (await run.advance(3, "Crashed")).ok
        assert (await resume(case, run, epoch=4))["result"] == case.result

    on_redis(redis_url, scenario)


def test_a_class_with_other_fields_is_incompatible_and_its_values_are_not_told(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Note(BaseModel):
        text: int

    monkeypatch.setattr(flows, "Note", Note)

    async def scenario(store: RedisStore, uid: str) -> None:
        for case in SHAPES:
            told = await refused(case, store, f"{uid}-{case.name[2:]}", IncompatibleError)
            assert (
                "the state's 'note' can't be read by this code: Note is another class now (text: Input"
                in told
            )
            assert "kept" not in told

    on_redis(redis_url, scenario)


def test_steps_that_changed_are_named(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class FansOut(flows.FansOut):
        @step
        async def added(self, ctx: Context, ev: flows.Part) -> StopEvent:
            return StopEvent()

    FansOut.__qualname__ = "FansOut"
    monkeypatch.setattr(flows, "FansOut", FansOut)
    FansOut.validate = lambda self, **_: True  # type: ignore[method-assign]

    async def scenario(store: RedisStore, uid: str) -> None:
        for case in (CUT, LOG):
            told = await refused(case, store, f"{uid}-{case.name[2:]}", IncompatibleError)
            assert "added is new" in told and "Run the code that began this run" in told

    on_redis(redis_url, scenario)


# --- as a runner meets it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (changed(CUT, "snapshot", 0, flip(60)), "CheckpointCorrupt"),
        (changed(CUT, "record", 0, lambda data: data[:2] + b"\x07" + data[3:]), "Incompatible"),
    ],
    ids=["damaged", "of another version"],
)
def test_a_runner_ends_with_a_word_that_says_it_can_never_work(
    redis_url: str, tmp_path: Any, case: Case, reason: str
) -> None:
    run = BareRun(redis_url, tmp_path, "corpus.flows:FansOut")
    run._ask(lambda store: store.clean())

    async def prepare() -> None:
        store = RedisStore.from_url(redis_url)
        assert await dumps.write(store, "chaos", run.uid, case.dump(seq=str(case.loaded.seq).encode()))
        await store.close()

    asyncio.run(prepare())
    try:
        run.epoch = 2
        run._ask(lambda store: store.advance(2, "Crashed"))
        env = {"PERDURE_SOURCE_PATH": str(HERE.parent)}
        assert run.start(env=env).wait(60) == 77, run.log.read_text()
        assert run.last_words()["reason"] == reason
        meta = run.facts().meta
        assert meta is not None and meta.outcome is None and meta.seq == case.loaded.seq
    finally:
        run.close()
