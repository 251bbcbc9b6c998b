"""What a runner's Redis can do to it: each fault on real processes, and what must hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.bare import LEASE, Make
from chaos.laptop import Laptop, some_documents, until
from chaos.link import Link
from chaos.notes import noted, until_stored
from redis_server import RedisServer

COUNT = 60


def torn_off(server: RedisServer, size: int) -> None:
    """What a power cut does to an append-only file: its last bytes were never on the disk."""
    # One file up to Redis 6.2, a base and what came after it from 7.0 on.
    (tail,) = (*server.directory.glob("appendonlydir/*.incr.aof"), *server.directory.glob("appendonly.aof"))
    with tail.open("r+b") as file:
        file.truncate(max(0, tail.stat().st_size - size))


def test_a_killed_redis_that_syncs_always_loses_nothing_and_the_runner_goes_on(
    make: Make, notes: Path
) -> None:
    with RedisServer(appendfsync="always") as server:
        run = make("habits:Counts", server.url, count=COUNT)
        runner = run.start()
        for stored in (10, 30):
            until_stored(notes, stored)
            server.kill()
            server.start()
        assert runner.wait(60) == 0, run.log.read_text()
        outcome, meta = run.outcome(), run.facts().meta
        assert outcome is not None and meta is not None
        assert outcome.result == COUNT
        assert noted(notes, "effect") == [str(n) for n in range(COUNT)]
        assert meta.restarts == 0, "nothing can be missing, and yet it was told"


def test_a_runner_writes_again_what_a_power_cut_took_from_its_redis(make: Make, notes: Path) -> None:
    with RedisServer(appendfsync="everysec") as server:
        run = make("habits:Counts", server.url, count=COUNT)
        runner = run.start()
        until_stored(notes, 20)
        server.kill()
        torn_off(server, 2000)
        server.start()
        assert runner.wait(60) == 0, run.log.read_text()
        outcome = run.outcome()
        assert outcome is not None
        assert outcome.result == COUNT
        assert noted(notes, "effect") == [str(n) for n in range(COUNT)]
        told = re.search(
            r"the store went back to seq (\d+); sending (\d+) records again", run.log.read_text()
        )
        assert told is not None, "the test took nothing away, or the loss was mended without a word"
        assert int(told[2]) > 0


def test_what_a_power_cut_took_together_with_the_runner_is_told_and_runs_again(
    make: Make, notes: Path
) -> None:
    with RedisServer(appendfsync="everysec") as server:
        run = make("habits:Counts", server.url, count=COUNT)
        runner = run.start()
        until_stored(notes, 20)
        run.signal_all(runner, signal.SIGKILL)
        server.kill()
        torn_off(server, 2000)
        server.start()
        run.epoch = 1
        run.take_over()
        assert run.start().wait(60) == 0, run.log.read_text()
        outcome, meta = run.outcome(), run.facts().meta
        assert outcome is not None and meta is not None
        assert outcome.result == COUNT
        assert meta.restarts == 1, "the only witness of the loss said nothing"
        effects = noted(notes, "effect")
        assert len(effects) > len(set(effects)) == COUNT, "the test took nothing away"


def test_a_full_redis_is_waited_for_with_the_lease_kept(make: Make, notes: Path) -> None:
    with RedisServer(maxmemory_policy="noeviction") as server:
        run = make("habits:Counts", server.url, count=COUNT)
        runner = run.start()
        until_stored(notes, 10)
        with server.client as client:
            client.config_set("maxmemory", "1")
            until(lambda: "maxmemory" in run.log.read_text(), what="the runner's word that it waits")
            held = time.monotonic()
            while time.monotonic() < held + 2 * LEASE:
                lease = run.facts().lease
                assert lease is not None and lease.expires_in > 0, "a full Redis cost the run its lease"
                time.sleep(LEASE / 4)
            assert runner.poll() is None, run.log.read_text()
            client.config_set("maxmemory", "0")
        assert runner.wait(60) == 0, run.log.read_text()
        assert noted(notes, "effect") == [str(n) for n in range(COUNT)]


def test_a_step_that_blocks_the_event_loop_keeps_its_run(make: Make, notes: Path, redis_url: str) -> None:
    run = make("habits:BlocksTheLoop", redis_url, pause=3 * LEASE)
    runner = run.start()
    until(lambda: len(noted(notes, "blocks")) == 1, what="the step")
    began = time.monotonic()
    while time.monotonic() < began + 2.5 * LEASE:
        lease = run.facts().lease
        assert lease is not None and lease.expires_in > 0, "the lease wasn't renewed meanwhile"
        time.sleep(LEASE / 4)
    assert runner.wait(60) == 0, run.log.read_text()
    meta = run.facts().meta
    assert meta is not None
    assert (meta.epoch, meta.fenced) == (1, 0)


@pytest.mark.parametrize("habit", ["NeverRests", "NeverYields"])
def test_user_code_of_a_cut_off_runner_has_ended_when_its_successor_can_start(
    make: Make, notes: Path, redis_server: RedisServer, habit: str
) -> None:
    with Link(redis_server.port) as link:
        run = make(f"habits:{habit}", redis_server.url)
        runner = run.start(through=link.url)
        until(lambda: len(noted(notes, "statement")) > 5, what="user code")
        link.cut()
        # A successor starts when the lease is over in the store, not before.
        until(lambda: run.facts().lease is None, seconds=4 * LEASE, what="the lease's end")
        over = time.monotonic()
        assert runner.wait(60) == 76, run.log.read_text()
    last = max(float(line.split()[0]) for line in notes.read_text().splitlines())
    assert last < over, f"user code ran {last - over:.3f} s after a successor could"


@pytest.mark.parametrize("skew", ["3600", "-3600", "jumps"])
def test_a_clock_that_is_wrong_or_jumps_fires_no_timer_wrongly(
    make: Make, notes: Path, redis_url: str, skew: str
) -> None:
    run = make("habits:Sleeps", redis_url, pause=1.5)
    skewed = {"PERDURE_TEST_CLOCK": skew, "PYTHONPATH": str(Path(__file__).parent / "skewed")}
    began = time.monotonic()
    first = run.start(env={**skewed, "PERDURE_TEST_CLOCK": "0"})
    until(lambda: len(noted(notes, "begin")) == 1, what="the step")
    run.signal_all(first, signal.SIGKILL)
    # Its successor is on a host whose clock is another.
    run.epoch = 1
    run.take_over()
    assert run.start(env=skewed).wait(60) == 0, run.log.read_text()
    assert time.monotonic() - began >= 1.5, "the timer fired early"
    meta = run.facts().meta
    assert meta is not None
    assert (meta.epoch, meta.fenced) == (2, 0)


def test_the_skewed_clock_is_skewed() -> None:
    env = {**os.environ, "PERDURE_TEST_CLOCK": "3600", "PYTHONPATH": str(Path(__file__).parent / "skewed")}
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(told.stdout) - time.time() > 3000


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    folder = some_documents(tmp_path / "docs", COUNT)
    made = Laptop(tmp_path / "it", folder=str(folder), limit=COUNT, delay=0.2, lease=int(LEASE))
    yield made
    made.close()


def store_ready(laptop: Laptop) -> dict[str, Any]:
    return next((c for c in laptop.status()["conditions"] if c["type"] == "StoreReady"), {})


def test_a_redis_that_was_emptied_ends_the_run_as_lost(laptop: Laptop) -> None:
    with RedisServer() as server:
        laptop.start("--redis", server.url)
        until(lambda: sum(laptop.conversions()[0].values()) > 8, what="work")
        with server.client as client:
            client.flushall()
        status, printed = laptop.finish()
    assert status == 1, printed
    assert laptop.status()["failure"]["reason"] == "StateLost"


def test_another_redis_behind_the_url_is_no_loss_and_is_waited_out(laptop: Laptop) -> None:
    with RedisServer() as right, RedisServer() as wrong, Link(right.port) as link:
        with wrong.client as client:
            client.set("perdure:local:store", "of others")
        laptop.start("--redis", link.url)
        until(lambda: sum(laptop.conversions()[0].values()) > 8, what="work")
        link.lead_to(wrong.port)
        until(lambda: store_ready(laptop).get("reason") == "WrongStore", what="WrongStore")
        time.sleep(2 * LEASE)
        assert laptop.runs_still
        with wrong.client as client:
            assert client.keys("perdure:local:{*") == [], (
                "the run was begun anew in a store that isn't its own"
            )
        link.lead_to(right.port)
        status, printed = laptop.finish()
    assert status == 0, printed
    assert laptop.conversions()[1] == []
