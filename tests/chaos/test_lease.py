"""The lease of a real runner: what ends it, and what it survives. Real processes, a real Redis."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from chaos.bare import LEASE, Make
from chaos.laptop import until
from redis_server import RedisServer


def lines(notes: Path) -> list[tuple[float, str]]:
    if not notes.exists():
        return []
    found = [line.partition(" ") for line in notes.read_text().splitlines()]
    return [(float(when), what) for when, _, what in found]


def test_a_runner_that_holds_the_gil_is_ended_by_the_kernel(make: Make, notes: Path) -> None:
    run = make("habits:HoldsTheGil")
    runner = run.start()
    assert runner.wait(60) == 76
    assert [what for _, what in lines(notes)] == ["begin"]
    words = run.last_words()
    assert (words["reason"], words["message"]) == ("LeaseLost", "lease expired: killed by the kernel timer")
    log = run.log.read_text()
    assert "lease expired: killed by the kernel timer" in log
    assert "in hold" in log, "the log doesn't say in which step it hung"


def test_a_frozen_runner_runs_not_one_more_statement_past_its_lease(make: Make, notes: Path) -> None:
    run = make("habits:NeverRests")
    runner = run.start()
    until(lambda: len(lines(notes)) > 5, what="user code")
    frozen = run.engine(runner)
    run.signal_all(runner, signal.SIGSTOP)
    time.sleep(0.2)
    before = len(lines(notes))
    time.sleep(LEASE + 0.5)
    run.take_over("LeaseExpired")
    run.signal_all(runner, signal.SIGCONT)
    assert runner.wait(30) == 76
    assert len(lines(notes)) == before, f"engine {frozen} went on after its lease had expired"


def test_a_freeze_shorter_than_the_lease_is_survived(make: Make, notes: Path) -> None:
    run = make("habits:Counts", count=40)
    runner = run.start()
    until(lambda: len(lines(notes)) > 4, what="user code")
    run.signal_all(runner, signal.SIGSTOP)
    time.sleep(LEASE / 3)
    run.signal_all(runner, signal.SIGCONT)
    assert runner.wait(60) == 0
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.result == 40


def test_with_the_timer_off_the_fence_alone_refuses_the_zombie(make: Make, notes: Path) -> None:
    run = make("habits:Counts", count=1000)
    runner = run.start(env={"PERDURE_TEST_LEASE_TIMER": "off"})
    until(lambda: len(lines(notes)) > 4, what="user code")
    log = run.log
    run.signal_all(runner, signal.SIGSTOP)
    time.sleep(0.2)
    run.take_over("LeaseExpired")
    meta = run.facts().meta
    assert meta is not None
    seq, before = meta.seq, len(lines(notes))
    time.sleep(LEASE)
    run.signal_all(runner, signal.SIGCONT)
    assert runner.wait(30) == 76
    after = run.facts().meta
    assert after is not None
    assert len(lines(notes)) > before, "the timer was off, and yet user code didn't go on"
    assert after.seq == seq, "the zombie's commit was taken"
    assert after.fenced >= 1, "the refused commit wasn't counted"
    assert "NOT judged" in log.read_text()


def test_a_run_that_waits_in_the_engine_is_parked_while_redis_is_away(make: Make, notes: Path) -> None:
    with RedisServer() as server:
        run = make("habits:Sleeps", url=server.url, pause=2 * LEASE)
        runner = run.start()
        until(lambda: len(lines(notes)) == 1, what="the step")
        server.kill()
        time.sleep(1.5 * LEASE)
        assert runner.poll() is None, f"the runner ended while Redis was away: {run.log.read_text()}"
        server.start()
        assert runner.wait(60) == 0
        assert [what for _, what in lines(notes)] == ["begin", "woke"], "the step ran again"
        assert "parked" in run.log.read_text()
        run.close()


def test_a_step_in_code_of_its_own_is_ended_when_redis_stays_away(make: Make, notes: Path) -> None:
    with RedisServer() as server:
        run = make("habits:NeverRests", url=server.url)
        runner = run.start()
        until(lambda: len(lines(notes)) > 5, what="user code")
        server.kill()
        gone = time.monotonic()
        assert runner.wait(60) == 76
        assert time.monotonic() - gone < LEASE + 2
        assert run.last_words()["reason"] == "LeaseLost"
        run.close()


def test_a_term_gives_the_run_back_and_a_successor_goes_on(make: Make, notes: Path) -> None:
    run = make("habits:Counts", count=60)
    runner = run.start()
    until(lambda: len(lines(notes)) > 8, what="user code")
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(30) == 75
    meta = run.facts().meta
    assert meta is not None
    assert (meta.released, meta.outcome) == ("yield", None)
    run.epoch = 1
    run.take_over("Disrupted")
    assert run.start().wait(60) == 0
    effects = [what for _, what in lines(notes) if what.startswith("effect")]
    assert len(set(effects)) == 60
    assert len(effects) - len(set(effects)) <= 1, "more than the step that was cut off was repeated"


def test_two_runners_of_one_epoch_are_one_too_many(make: Make, notes: Path) -> None:
    # Long enough for the second to start while the first runs: both leave their last words in one file.
    run = make("habits:Counts", count=200)
    first = run.start()
    until(lambda: len(lines(notes)) > 2, what="user code")
    second = run.start()
    assert second.wait(30) == 76
    assert run.last_words()["reason"] == "Fenced"
    assert first.wait(60) == 0
    effects = [what for _, what in lines(notes) if what.startswith("effect")]
    assert len(effects) == len(set(effects)) == 200


def test_a_cancel_reaches_a_live_runner_and_is_its_outcome(redis_url: str, make: Make, notes: Path) -> None:
    run = make("habits:Counts", count=10_000)
    runner = run.start()
    until(lambda: len(lines(notes)) > 2, what="user code")
    run._ask(lambda store: store.set_desired("Cancelled"))
    assert runner.wait(30) == 0
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.reason == "Cancelled"


def test_code_that_began_a_run_and_can_not_be_imported_now_is_a_crash_and_not_its_end(
    make: Make, notes: Path
) -> None:
    run = make("habits:Counts", count=40)
    run.entrypoint = "brittle:Counts"
    runner = run.start()
    until(lambda: len(lines(notes)) > 4, what="user code")
    run.signal_all(runner, signal.SIGKILL)
    run.take_over()
    assert run.start(env={"BRITTLE": "1"}).wait(60) == 1
    assert "the database is away" in run.last_words()["message"]
    run.take_over()
    assert run.start().wait(60) == 0
