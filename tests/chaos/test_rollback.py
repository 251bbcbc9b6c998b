"""A store that went back behind a runner's back: the runner tells it again, or says what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
from chaos.bare import LEASE, NAMESPACE, BareRun, Make
from chaos.laptop import until

from perdure.store.keys import RunKeys


def successor(run: BareRun) -> Any:
    """A runner of epoch 2 that is in its step."""
    run.epoch = 1
    run.take_over()
    runner = run.start()
    until(lambda: (run.folder / "notes").exists() or at_rest(run), what="the step")
    return runner


def at_rest(run: BareRun) -> bool:
    meta = run.facts().meta
    return meta is not None and bool(meta.in_flight)


def goes_back(run: BareRun, **fields: str) -> None:
    keys = RunKeys.of(NAMESPACE, run.uid)
    with redis.Redis.from_url(run.url) as client:
        client.hset(keys.meta, mapping=fields)
        client.delete(keys.lease)


def test_a_runner_whose_acquire_was_forgotten_takes_its_run_again(make: Make, tmp_path: Path) -> None:
    run = make("habits:Sleeps", pause=1.5 * LEASE)
    runner = successor(run)
    # Also what the store looks like when it forgot the takeover, and the operator told it again first.
    goes_back(run, holder="")
    assert runner.wait(60) == 0, run.log.read_text()
    assert [line.split()[1] for line in (tmp_path / "notes").read_text().splitlines()] == ["begin", "woke"]


def test_a_runner_whose_records_another_replaced_says_that_state_is_lost(make: Make) -> None:
    run = make("habits:Counts", pause=LEASE * 0.8)
    runner = successor(run)
    meta = run.facts().meta
    assert meta is not None
    goes_back(run, epoch="1", holder="zombie", seq=str(meta.seq + 1), digest="another's")
    assert runner.wait(60) == 1
    assert run.last_words()["reason"] == "StateLost", run.last_words()
