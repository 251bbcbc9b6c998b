"""A run in a file: taken while it lives, put where nothing is, gone on with; nothing of it is done again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_groups import Cluster
from redis_server import RedisServer

from perdure import Context, Workflow, history, step
from perdure.cli import archive
from perdure.events import Event, StartEvent, StopEvent
from perdure.store.dump import Dump, read, write
from perdure.store.records import check
from perdure.store.redis import RedisStore

ITEMS = 40
FLOW = f"""
import asyncio
from pathlib import Path
from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent

class Piece(Event):
    number: int

class Done(Event):
    number: int

def note(text):
    with open("executions", "a") as file:
        file.write(text + "\\n")

class Flow(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Piece]:
        note("split")
        return [Piece(number=n) for n in range({ITEMS})]

    @step(num_workers=2)
    async def work(self, ctx: Context, ev: Piece) -> Done:
        note(str(ev.number))
        await asyncio.sleep(0.03)
        while ev.number >= {ITEMS // 2} and Path("stop").exists():
            await asyncio.sleep(0.03)
        return Done(number=ev.number)

    @step
    async def end(self, ev: list[Done]) -> StopEvent:
        note("end")
        return StopEvent(result=sorted(done.number for done in ev))
"""

Cli = Callable[..., tuple[int, str]]


def perdure(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "perdure.cli.main", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def executions(folder: Path) -> list[str]:
    file = folder / "executions"
    return file.read_text().split() if file.exists() else []


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a run of this machine lives, half of its steps committed, two in flight."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "flow.py").write_text(FLOW)
    (folder / "stop").touch()
    process = perdure("run", "flow.py:Flow", "--name", "flow", folder=folder)
    try:
        while len(executions(folder)) < 1 + ITEMS // 2 + 2:
            assert process.poll() is None
        yield folder
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def completed(cli: Cli, *arguments: str) -> int:
    status, out = cli("history", *arguments, "--json")
    assert status == 0, out
    document = json.loads(out)
    before = [entry["detail"] for entry in document["entries"] if entry["what"] == "snapshot"]
    summed = int(before[0].split()[0]) if before else 0
    return summed + sum(entry["what"] == "returned" for entry in document["entries"])


@pytest.mark.parametrize("embedded", [False, True])
def test_a_run_exported_in_the_middle_goes_on_elsewhere_and_repeats_nothing(
    halfway: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    monkeypatch.chdir(halfway)
    status, out = cli("export", "flow", "../flow.export")
    assert status == 0, out
    assert "It holds the run's input, events and state." in out
    assert oct(Path("../flow.export").stat().st_mode & 0o777) == "0o600"
    second = tmp_path / "second"
    second.mkdir()
    shutil.copy(halfway / "flow.py", second)
    monkeypatch.chdir(second)
    with RedisServer() as server:
        redis = [] if embedded else ["--redis", server.url]
        status, out = cli("import", "../flow.export", "--name", "again", *redis)
        assert status == 0, out
        committed = completed(cli, "again", *redis)
        assert 1 <= committed <= ITEMS // 2 + 1
        process = perdure("run", "flow.py:Flow", "--name", "again", *redis, folder=second)
        told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert json.loads(told[told.index("[") : told.index("]") + 1]) == list(range(ITEMS))
    here = executions(second)
    assert max(Counter(here).values()) == 1
    assert "split" not in here
    assert len(here) == ITEMS + 2 - committed, "what had not committed, and nothing else"


def test_a_run_of_a_program_is_restored_under_its_own_id_when_its_redis_is_lost(
    tmp_path: Path, cli: Cli
) -> None:
    async def until_stopped(url: str) -> None:
        store = RedisStore.from_url(url)
        handler = Counting().run(run_id="counting", store=store)
        await asyncio.wait_for(Counting.reached.wait(), 60)
        file = tmp_path / "counting.export"
        exporting = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "perdure.cli.main", "export", "counting", str(file), "--redis", url
        )
        assert await exporting.wait() == 0
        (await handler._live()).loop.stop(None, RuntimeError("the end of the first process"))
        await store.close()

    async def finish(url: str) -> Any:
        store = RedisStore.from_url(url)
        result = await Counting().run(run_id="counting", store=store)
        await store.close()
        return result

    Counting.reset()
    with RedisServer() as first:
        asyncio.run(until_stopped(first.url))
    with RedisServer() as second:
        file = str(tmp_path / "counting.export")
        status, out = cli("import", file, "--restore", "--redis", second.url)
        assert status == 0, out
        status, out = cli("import", file, "--restore", "--redis", second.url)
        assert status == 2
        assert "it stays as it is" in out
        Counting.go.set()
        assert asyncio.run(finish(second.url)) == [1, 2]
    assert Counting.calls == ["first", "second", "second"], "the first had committed"


def test_a_redis_that_begins_from_anothers_snapshot_of_its_memory_has_its_runs(tmp_path: Path) -> None:
    """As docs/durability.md has it: dump.rdb beside no append-only file, which is asked for afterwards."""

    async def begin(url: str) -> None:
        store = RedisStore.from_url(url)
        handler = Counting().run(run_id="counting", store=store)
        await asyncio.wait_for(Counting.reached.wait(), 60)
        (await handler._live()).loop.stop(None, RuntimeError("the end of the first process"))
        await store.close()

    async def finish(url: str) -> Any:
        store = RedisStore.from_url(url)
        result = await Counting().run(run_id="counting", store=store)
        await store.close()
        return result

    Counting.reset()
    with RedisServer() as first:
        asyncio.run(begin(first.url))
        with first.client as client:
            client.save()
        shutil.copy(first.directory / "dump.rdb", tmp_path / "dump.rdb")
    second = RedisServer(appendonly="no")
    shutil.copy(tmp_path / "dump.rdb", second.directory / "dump.rdb")
    Counting.go.set()
    with second, second.client as client:
        client.config_set("appendonly", "yes")
        client.delete("perdure:local:{counting}:lease")  # of the first process: it would run out by itself
        assert asyncio.run(finish(second.url)) == [1, 2]
        until = time.monotonic() + 60
        while client.info("persistence")["aof_rewrite_in_progress"]:
            assert time.monotonic() < until
            time.sleep(0.02)
        second.restart(appendonly="yes")
        assert asyncio.run(finish(second.url)) == [1, 2], (
            "and keeps them in its append-only file from then on"
        )
    assert Counting.calls == ["first", "second", "second"], "the first had committed"


def test_a_run_is_read_and_written_where_its_keys_are_in_a_cluster() -> None:
    async def copy(url: str) -> tuple[Dump | None, Dump | None, bool]:
        store = RedisStore.from_url(url)
        Counting.go.set()
        await Counting().run(run_id="counting", store=store)
        first = await read(store, "local", "counting")
        assert first is not None
        # Other slots, so other nodes, by what their names hash to.
        written = [await write(store, "local", f"copy-{number}", first) for number in range(6)]
        again = await write(store, "local", "copy-0", first)
        second = await read(store, "local", "copy-5")
        await store.close()
        assert all(written)
        return first, second, again

    Counting.reset()
    with Cluster() as cluster:
        first, second, again = asyncio.run(copy(cluster.url))
    assert first == second
    assert again is False


class Busy(Workflow):
    """Commits, and cuts its log, as fast as it can."""

    @step
    async def write(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for number in range(3000):
            await ctx.store.set("value", str(number) * 200)
        return StopEvent()


def test_what_is_read_of_a_live_run_is_of_one_moment() -> None:
    async def look(url: str) -> list[Dump]:
        store = RedisStore.from_url(url)
        handler = Busy().run(run_id="busy", store=store)
        seen = []
        while not handler.is_done():
            dump = await read(store, "local", "busy")
            if dump is not None:
                seen.append(dump)
        await handler
        await store.close()
        return seen

    with RedisServer(unix=True) as server:
        seen = asyncio.run(look(server.url))
    for dump in seen:
        check(dump.loaded)  # the log reaches from the snapshot to meta's seq without a gap
        history.read(dump.meta, dump.loaded)
    assert len({dump.meta.seq for dump in seen}) > 20, "it was live"
    assert len({dump.meta.base for dump in seen}) > 2, "and cut"


class Next(Event):
    pass


class Counting(Workflow):
    calls: list[str]
    reached: asyncio.Event
    go: asyncio.Event

    @classmethod
    def reset(cls) -> None:
        cls.calls, cls.reached, cls.go = [], asyncio.Event(), asyncio.Event()

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Next:
        self.calls.append("first")
        await ctx.store.append("seen", 1)
        return Next()

    @step
    async def second(self, ctx: Context, ev: Next) -> StopEvent:
        self.calls.append("second")
        if not self.go.is_set():
            self.reached.set()
            await asyncio.sleep(3600)
        await ctx.store.append("seen", 2)
        return StopEvent(result=await ctx.store.get("seen"))


@pytest.mark.parametrize("version", range(1, archive.FORMAT + 1))
def test_what_was_exported_in_each_format_is_taken_up(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    exports = Path(__file__).parent / "exports"
    shutil.copy(exports / "flow.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    status, out = cli("import", str(exports / f"{version}.export"))
    assert status == 0, out
    committed = completed(cli, "flow")
    assert committed > ITEMS // 2
    process = perdure("run", "flow.py:Flow", "--name", "flow", folder=tmp_path)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert json.loads(told[told.index("[") : told.index("]") + 1]) == list(range(ITEMS))
    assert len(executions(tmp_path)) == ITEMS + 2 - committed


@pytest.fixture
def ended(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The export of a run that has ended, in the present folder."""
    monkeypatch.chdir(tmp_path)
    Path("flow.py").write_text(FLOW)
    assert cli("run", "flow.py:Flow", "--name", "flow")[0] == 0
    assert cli("export", "flow", "flow.export")[0] == 0
    return tmp_path / "flow.export"


def test_nothing_that_is_there_is_overwritten(ended: Path, cli: Cli) -> None:
    before = ended.read_bytes()
    status, out = cli("export", "flow", "flow.export")
    assert (status, "flow.export exists" in out) == (2, True)
    assert ended.read_bytes() == before
    status, out = cli("import", "flow.export")
    assert (status, "there is a run 'flow' under .perdure already" in out) == (2, True)
    assert cli("history", "flow")[0] == 0


def test_a_run_that_has_ended_tells_its_result_where_it_is_imported(ended: Path, cli: Cli) -> None:
    assert cli("import", "flow.export", "--name", "copy")[0] == 0
    before = executions(ended.parent)
    status, out = cli("run", "flow.py:Flow", "--name", "copy")
    assert status == 0
    assert str(ITEMS - 1) in out
    assert executions(ended.parent) == before


@pytest.mark.parametrize("part", ["log", "export.json", None])
def test_a_file_that_is_not_what_was_exported_is_refused(ended: Path, cli: Cli, part: str | None) -> None:
    if part is None:
        ended.write_bytes(ended.read_bytes()[:-100])
    else:
        with zipfile.ZipFile(ended) as archived:
            parts = {name: archived.read(name) for name in archived.namelist()}
        whole = parts[part]
        parts[part] = whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:]
        if part == "export.json":
            parts[part] = whole.replace(b'"format": 1', b'"format": 9')
        with zipfile.ZipFile(ended, "w") as archived:
            for name, data in parts.items():
                archived.writestr(name, data)
    status, out = cli("import", "flow.export", "--name", "copy")
    assert status == 2
    expected = {"export.json": "has format 9", None: "isn't a whole file"}.get(part, "its checksum differs")
    assert expected in out
    assert not Path(".perdure/runs/copy/run.json").exists()


def test_a_file_of_no_machine_needs_a_target_and_runs_it(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flow.py").write_text(FLOW)
    with RedisServer() as server:
        assert cli("run", "flow.py:Flow", "--name", "flow", "--redis", server.url)[0] == 0
        uid = json.loads(Path(".perdure/runs/flow/run.json").read_text())["metadata"]["uid"]
        shutil.rmtree(".perdure")
        assert cli("export", uid, "flow.export", "--redis", server.url)[0] == 0
    status, out = cli("import", "flow.export")
    assert (status, "add --target" in out) == (2, True)
    assert cli("import", "flow.export", "--target", "flow.py:Flow", "--name", "copy")[0] == 0
    assert cli("run", "flow.py:Flow", "--name", "copy")[0] == 0
