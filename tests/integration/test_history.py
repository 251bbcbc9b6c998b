"""A run's history, from what a real Redis holds of it and without the code that it ran."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer

from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed
from perdure.store.redis import RedisStore

Cli = Callable[..., tuple[int, str]]


class Piece(Event):
    text: str


class Answer(Event):
    pass


class Story(Workflow):
    """Each kind of thing that a history tells of."""

    tries = 0

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> Piece | None:
        ctx.send_event(Piece(text="secret one"))
        return Piece(text="secret two")

    @step(retry_policy=retry_policy(stop=stop_after_attempt(3), wait=wait_fixed(0)))
    async def work(self, ctx: Context, ev: Piece) -> Answer:
        Story.tries += 1
        if Story.tries == 1:
            raise ValueError("not yet")
        await ctx.store.append("seen", ev.text)
        return Answer()

    @step
    async def end(self, ctx: Context, ev: Answer) -> StopEvent | None:
        both = ctx.collect_events(ev, [Answer, Answer])
        return StopEvent(result="told") if both else None


def told(url: str, cli: Cli) -> dict[str, Any]:
    status, out = cli("history", "story-1", "--redis", url, "--json")
    assert status == 0, out
    document: dict[str, Any] = json.loads(out)
    return document


def test_each_thing_that_was_committed_is_told_with_whose_it_was(cli: Cli) -> None:
    async def run(url: str) -> None:
        store = RedisStore.from_url(url)
        await Story().run(run_id="story-1", store=store)
        await store.close()

    Story.tries = 0
    with RedisServer() as server:
        asyncio.run(run(server.url))
        document = told(server.url, cli)
        status, table = cli("history", "story-1", "--redis", server.url)
    entries = document["entries"]
    did = [(entry["what"], entry.get("step", ""), entry.get("detail", "")) for entry in entries]
    assert did[:2] == [("input", "", ""), ("began", "", "StartEvent")]
    for expected in (
        ("sent", "split", "Piece"),
        ("returned", "split", "Piece"),
        ("failed", "work", "ValueError: not yet (tried again)"),
        ("due again", "work", ""),
        ("wrote", "work", "seen"),
        ("wrote", "work", "seen: 1 more"),
        ("returned", "work", "Answer"),
        ("returned", "end", ""),
        ("returned", "end", "StopEvent"),
    ):
        assert expected in did, did
    retried = next(entry for entry in entries if entry["what"] == "failed")
    again = [
        entry
        for entry in entries
        if entry.get("invocation") == retried["invocation"] and entry["what"] == "returned"
    ]
    assert (retried["attempt"], again[0]["attempt"]) == (1, 2)
    assert [entry["seq"] for entry in entries] == sorted(entry["seq"] for entry in entries)
    assert all(entry["epoch"] == 1 and entry["bytes"] > 0 for entry in entries)
    times = [entry["time"] for entry in entries if "time" in entry]
    assert times == sorted(times) and len(times) == len(entries) - 1, "only the input has none"
    assert document["outcome"]["reason"] == "Completed"
    assert "secret" not in json.dumps(document) + table, "what happened, not with what"
    rows = table.splitlines()
    assert rows[0].split("\t")[:4] == ["seq", "epoch", "time", "bytes"]
    assert (status, len(rows), rows[-1]) == (0, len(entries) + 2, "ended: Completed")


SLOW = """
import asyncio
from pathlib import Path
from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent

class Piece(Event):
    number: int

class Slow(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Piece]:
        return [Piece(number=n) for n in range(2000)]

    @step(num_workers=4)
    async def work(self, ctx: Context, ev: Piece) -> StopEvent | None:
        if ev.number < 1990:
            return None
        Path("reached").touch()
        while not Path("go").exists():
            await asyncio.sleep(0.02)
        return StopEvent(result="done")
"""


def test_a_run_of_this_machine_is_told_while_it_lives_and_when_nobody_runs_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure.cli.main", "run", "slow.py:Slow", "--name", "slow"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not Path("reached").exists():
            assert process.poll() is None
        status, out = cli("history", "slow", "--json")
        assert status == 0, out
        live = json.loads(out)
        assert live["outcome"] is None
        assert {flight["step"] for flight in live["inFlight"]} == {"work"}
        Path("go").touch()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    status, out = cli("history", "slow", "--json")
    over = json.loads(out)
    assert over["outcome"]["reason"] == "Completed"
    snapshot = [entry for entry in over["entries"] if entry["what"] == "snapshot"]
    assert len(snapshot) == 1, "the log was cut, and says so"
    assert snapshot[0]["seq"] == over["base"]
    assert "completed before" in snapshot[0]["detail"]
    assert all(entry["step"] for entry in over["entries"] if "invocation" in entry)
    assert not list(tmp_path.glob(".perdure/runs/slow/redis/server.json")), "its Redis was stopped again"


def test_a_run_that_is_nowhere_is_said_to_be(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out = cli("history", "nobody")
    assert (status, "there is no run 'nobody'" in out) == (2, True)
    with RedisServer() as server:
        status, out = cli("history", "nobody", "--redis", server.url)
    assert status == 2
    assert "has no run nobody in namespace local" in out
