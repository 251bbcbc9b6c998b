"""Every state within bounds keeps the three promises; and a fix that is taken out is missed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from model.explore import Found, explore
from model.world import Bounds
from mutations import mutate

from perdure.store.memory import MemoryRunStore
from perdure.store.session import RunSession

# Two runners, two operators that see late and may crash at any time, three commits. Each is explored to its end.
BOUNDS = (
    Bounds(rollbacks=0, losses=1, crashes=1, forgotten=1, epochs=2),
    Bounds(rollbacks=2, losses=0, crashes=0, forgotten=0, epochs=2),
    Bounds(rollbacks=1, losses=1, crashes=0, forgotten=0, epochs=2),
    Bounds(rollbacks=1, losses=0, crashes=0, forgotten=1, epochs=2),
    Bounds(rollbacks=1, losses=0, crashes=1, forgotten=0, epochs=2),
    Bounds(rollbacks=0, losses=2, crashes=0, forgotten=0, epochs=2),
    Bounds(rollbacks=0, losses=0, crashes=2, forgotten=0, epochs=3),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def explored(bounds: Bounds) -> tuple[Bounds, Found, float]:
    logging.disable(logging.CRITICAL)  # it is another process
    began = time.monotonic()
    return bounds, explore(bounds), time.monotonic() - began


@pytest.mark.timeout(900)
def test_every_state_within_the_bounds_keeps_the_promises(capsys: pytest.CaptureFixture[str]) -> None:
    with ProcessPoolExecutor(2) as pool:
        reports = list(pool.map(explored, BOUNDS))
    with capsys.disabled():
        for bounds, found, seconds in reports:
            print(
                f"\n{found.states} states, {found.transitions} transitions in {seconds:.0f} s: {bounds}",
                end="",
            )
        print()
    for _, found, _ in reports:
        assert found.broken is None, "\n".join(found.trace)


# What is taken out of where, and the bounds within which that is missed.
FIXES: dict[str, tuple[Bounds, list[tuple[Any, str, str, str]]]] = {
    "an epoch is used by one holder": (
        Bounds(rollbacks=0, losses=0, crashes=0, forgotten=1, epochs=1),
        [
            (MemoryRunStore, "acquire", "run.holder != holder or run.released", "run.released"),
            (MemoryRunStore, "_committed", "(epoch, holder) == (run.epoch, run.holder)", "epoch == run.epoch"),
        ],
    ),
    "a record that comes again is answered, not appended": (
        Bounds(rollbacks=0, losses=1, crashes=0, forgotten=0, epochs=1),
        [(MemoryRunStore, "_committed", "if commit.seq <= run.seq:", "if False:")],
    ),
    "another record of the same seq is a conflict": (
        Bounds(rollbacks=1, losses=0, crashes=0, forgotten=0, epochs=2),
        [(MemoryRunStore, "_committed", "commit.seq < run.seq or commit.digest == run.digest", "True")],
    ),
    "a gap is told": (
        Bounds(rollbacks=1, losses=0, crashes=0, forgotten=0, epochs=1),
        [(MemoryRunStore, "_committed", "if commit.seq > run.seq + 1 or", "if False and")],
    ),
    "a lost reply isn't an answer": (
        Bounds(rollbacks=0, losses=1, crashes=1, forgotten=0, epochs=2),
        [
            (
                RunSession, "_write",
                "    self._unsure = True\n        raise", "    return Reply(Tag.OK, commit.seq)",
            )
        ],
    ),
    "a holder of a later epoch takes a store that went back": (
        Bounds(rollbacks=1, losses=0, crashes=0, forgotten=0, epochs=2),
        [
            (MemoryRunStore, "acquire", "if epoch < run.epoch:", "if epoch != run.epoch:"),
            (RunSession, "_send", "answer.tag is Tag.FENCED and answer.number <= self.epoch", "False"),
        ],
    ),
    "a store that restarted is told by who acquires": (
        Bounds(rollbacks=1, losses=0, crashes=1, forgotten=0, epochs=2),
        [(MemoryRunStore, "acquire", "run.server and run.server != self._store.server_id", "False")],
    ),
    "a store that restarted before the first acquire is told": (
        Bounds(rollbacks=1, losses=0, crashes=1, forgotten=0, epochs=2),
        [(MemoryRunStore, "acquire", "run.server and run.server != self._store.server_id",
          "run.holder and run.server != self._store.server_id")],
    ),
    "a holder whose connection broke acquires again": (
        Bounds(rollbacks=1, losses=0, crashes=0, forgotten=0, epochs=2),
        [(RunSession, "_write", "if self._unsure:", "if False:")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fix", FIXES)
def test_a_fix_that_is_taken_out_is_missed(fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds, parts = FIXES[fix]
    for part in parts:
        mutate(monkeypatch, *part)
    found = explore(bounds)
    assert found.broken is not None, f"{found.states} states don't miss it"
    print(f"after {found.states} states:", *found.trace, sep="\n  ")


def test_what_breaks_a_promise_is_told_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds, parts = FIXES["an epoch is used by one holder"]
    for part in parts:
        mutate(monkeypatch, *part)
    trace = explore(bounds).trace
    assert any("makes pod 1, process 1a" in line for line in trace)
    assert any("makes pod 1, process 1b" in line for line in trace)
    assert trace[-1].startswith("and then: ")
