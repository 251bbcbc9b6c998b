"""Runs on a Redis that sentinels keep up and on a cluster: real processes, kill -9, and a slot that moves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from chaos.bare import LEASE, NAMESPACE, BareRun, Make
from chaos.laptop import Laptop, some_documents, until
from chaos.notes import noted, noted_at, until_stored
from redis_groups import Cluster, Sentinels, slot_of
from redis_server import RedisServer

COUNT = 60
DOCUMENTS = 30


def assert_complete(run: BareRun, notes: Path) -> None:
    """Every effect once, in its order, and the result."""
    outcome = run.outcome()
    assert outcome is not None and outcome.result == COUNT
    assert noted(notes, "effect") == [str(n) for n in range(COUNT)]


# --- sentinels ------------------------------------------------------------------------------------------


def test_a_failover_is_gone_through_and_what_the_replica_lacked_is_written_again(
    make: Make, notes: Path, record_property: Callable[[str, object], None]
) -> None:
    with Sentinels(appendfsync="always") as group:
        run = make("habits:Counts", group.url, count=COUNT)
        runner = run.start()
        until_stored(notes, 15)
        group.cut_replication()
        until_stored(notes, 25)
        group.primary.kill()
        promoted = group.until_promoted()
        assert runner.wait(60) == 0, run.log.read_text()
        assert_complete(run, notes)
        assert "the store went back to seq" in run.log.read_text(), "the replica lacked nothing"
    first = next(at for at, _ in noted_at(notes, "stored") if at > promoted)
    record_property("seconds_from_promotion_to_the_next_commit", round(first - promoted, 2))
    print(f"{first - promoted:.2f} s from the promotion to the next commit")


def test_what_a_promoted_replica_lacks_is_told_though_both_sync_every_write(make: Make, notes: Path) -> None:
    with Sentinels(appendfsync="always") as group:
        run = make("habits:Counts", group.url, count=COUNT)
        runner = run.start()
        until_stored(notes, 15)
        group.cut_replication()
        until_stored(notes, 25)
        group.primary.kill()
        run.signal_all(runner, signal.SIGKILL)
        group.until_promoted()
        until(lambda: answers(run), what="the new primary")
        run.epoch = 1
        run.take_over()
        assert run.start().wait(60) == 0, run.log.read_text()
        outcome, meta = run.outcome(), run.facts().meta
        assert outcome is not None and meta is not None
        assert outcome.result == COUNT
        effects = noted(notes, "effect")
        assert len(effects) > len(set(effects)) == COUNT, "the replica lacked nothing"
        assert meta.restarts == 1, "the only witness of the loss said nothing"


def answers(run: BareRun) -> bool:
    from perdure.errors import StoreUnavailableError

    try:
        return run.facts() is not None
    except StoreUnavailableError:
        return False


def test_perdure_run_goes_through_a_failover(tmp_path: Path) -> None:
    folder = some_documents(tmp_path / "docs", DOCUMENTS)
    laptop = Laptop(tmp_path / "it", folder=str(folder), limit=DOCUMENTS, delay=0.2, lease=int(LEASE))
    try:
        with Sentinels() as group:
            laptop.start("--redis", group.url)
            until(lambda: sum(laptop.conversions()[0].values()) > 8, what="work")
            group.primary.kill()
            status, printed = laptop.finish()
        assert status == 0, printed
        assert laptop.conversions()[1] == []
    finally:
        laptop.close()


# --- a cluster ------------------------------------------------------------------------------------------


def test_a_slot_that_moves_while_its_run_goes_costs_it_nothing(make: Make, notes: Path) -> None:
    with Cluster() as cluster:
        run = make("habits:Counts", cluster.url, count=COUNT)
        slot = slot_of(NAMESPACE, run.uid)
        source = cluster.owner(slot)
        target = next(node for node in cluster.nodes if node is not source)
        runner = run.start()
        until_stored(notes, 10)
        cluster.begin_move(slot, source, target)
        # A run has keys that don't exist yet, so from here on it is told to ask elsewhere or try again.
        until(lambda: "moving these keys" in run.log.read_text(), what="the runner's word that it waits")
        cluster.move_keys(slot, source, target)
        time.sleep(0.3)
        cluster.end_move(slot, target)
        until_stored(notes, 30)
        with target.client as client:
            assert client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) > 0
        # And back, at once.
        cluster.begin_move(slot, target, source)
        cluster.move_keys(slot, target, source)
        cluster.end_move(slot, source)
        assert runner.wait(60) == 0, run.log.read_text()
        assert_complete(run, notes)
        meta = run.facts().meta
        assert meta is not None and (meta.epoch, meta.fenced) == (1, 0)


def test_a_clusters_own_failover_is_gone_through(make: Make, notes: Path) -> None:
    with Cluster() as cluster:
        run = make("habits:Counts", cluster.url, count=COUNT)
        owner = cluster.owner(slot_of(NAMESPACE, run.uid))
        replica = cluster.add_replica(owner)
        runner = run.start()
        until_stored(notes, 15)
        owner.kill()
        assert runner.wait(60) == 0, run.log.read_text()
        until(lambda: answers(run), what="the cluster")
        assert_complete(run, notes)
        with replica.client as client:
            assert client.info("replication")["role"] == "master"


def test_perdure_run_works_on_a_cluster_and_takes_over_there(tmp_path: Path) -> None:
    folder = some_documents(tmp_path / "docs", DOCUMENTS)
    laptop = Laptop(tmp_path / "it", folder=str(folder), limit=DOCUMENTS, delay=0.2, lease=int(LEASE))
    try:
        with Cluster() as cluster:
            laptop.start("--redis", cluster.url)
            until(lambda: sum(laptop.conversions()[0].values()) > 8, what="work")
            laptop.kill_runner()
            status, printed = laptop.finish()
        assert status == 0, printed
        assert laptop.conversions()[1] == []
    finally:
        laptop.close()


# --- connections ----------------------------------------------------------------------------------------


def test_a_run_has_two_connections_at_most(make: Make, notes: Path) -> None:
    with RedisServer() as server, server.client as client:
        run = make("habits:Hoards", server.url, count=60, pause=0.05)  # longer than two renewals
        before = len(client.client_list())
        runner = run.start()
        most = 0
        while runner.poll() is None:
            most = max(most, len(client.client_list()) - before)
            time.sleep(0.002)
        assert runner.wait(60) == 0, run.log.read_text()
        meta = run.facts().meta
        assert meta is not None and meta.base > 0, "no snapshot was uploaded"
        assert most == 2
