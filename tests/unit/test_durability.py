"""What a server's own words come to: what it may lose, the worst first, and what to set."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from perdure.store.base import StoreFacts
from perdure.store.durability import Durability, doubts, judge
from perdure_operator import metrics

LEASE = 10.0
SAFE = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "1000",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "0",
    "min-replicas-max-lag": "10",
    "save": "",
}


def facts(durable: str = "always", info: dict[str, str] | None = None, **settings: str) -> StoreFacts:
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    return StoreFacts("id", "master", "7.0", durable, 0.0, settings=SAFE | named, info=info or {})


def told(server: StoreFacts) -> list[str]:
    return [doubt.reason for doubt in doubts(server, LEASE)]


def test_a_server_that_syncs_each_write_and_stands_alone_keeps_all() -> None:
    assert judge(doubts(facts(), LEASE)) == Durability("True", "EveryWriteSynced")


@pytest.mark.parametrize(
    ("server", "reason", "says"),
    [
        (facts("everysec", appendfsync="everysec"), "UpToOneSecond", "set always"),
        (facts("no", appendfsync="no"), "SyncLeftToSystem", "half a minute"),
        (facts("no", appendonly="no"), "NoAppendOnlyFile", "loses all"),
        (facts("no", appendonly="no", save="3600 1"), "NoAppendOnlyFile", "after its last snapshot"),
        (facts(maxmemory_policy="allkeys-lru"), "EvictsKeys", "set noeviction"),
        (facts(info={"aof_last_write_status": "err"}), "AppendOnlyFileFails", "its disk"),
        (facts(info={"connected_slaves": "2"}), "SplitBrainPossible", "min-replicas-max-lag 5"),
    ],
)
def test_what_may_be_lost_is_told_with_what_to_set(server: StoreFacts, reason: str, says: str) -> None:
    said = judge(doubts(server, LEASE))
    assert (said.status, said.reason) == ("False", reason)
    assert says in said.message


@pytest.mark.parametrize("policy", ["volatile-lru", "noeviction"])
def test_a_policy_that_leaves_keys_without_a_time_to_live_alone_costs_no_state(policy: str) -> None:
    assert told(facts(maxmemory_policy=policy)) == []


def test_a_server_without_a_limit_evicts_nothing() -> None:
    assert told(facts(maxmemory="0", maxmemory_policy="allkeys-lru")) == []


def test_a_lag_within_half_a_lease_bounds_a_split_brain_and_a_longer_one_does_not() -> None:
    replicas = {"connected_slaves": "1"}
    bounded = facts(info=replicas, min_replicas_to_write="1", min_replicas_max_lag="5")
    assert told(bounded) == ["AsynchronousReplicas"]
    assert doubts(bounded, 6.0)[0].reason == "SplitBrainPossible"
    unlimited = facts(info=replicas, min_replicas_to_write="1", min_replicas_max_lag="0")
    assert told(unlimited)[0] == "SplitBrainPossible", "no limit on the lag at all"


@pytest.mark.parametrize(
    ("waits_for", "reason"),
    [
        (0, "SplitBrainPossible"),
        (1, "AsynchronousReplicas"),
        (2, "EveryWriteSynced"),
        (3, "EveryWriteSynced"),
    ],
)
def test_a_run_that_waits_for_replicas_is_safe_from_what_they_settle(waits_for: int, reason: str) -> None:
    found = doubts(facts(info={"connected_slaves": "2"}), LEASE)
    assert judge(found, waits_for).reason == reason


def test_the_worst_gives_the_reason_and_all_are_told() -> None:
    server = facts("everysec", info={"connected_slaves": "1"}, maxmemory_policy="allkeys-lru")
    said = judge(doubts(server, LEASE))
    assert said.reason == "EvictsKeys"
    for part in ("allkeys-lru", "everysec", "cut off from its replicas"):
        assert part in said.message


def test_a_split_brain_is_worse_than_a_second() -> None:
    assert told(facts("everysec", info={"connected_slaves": "1"})) == [
        "SplitBrainPossible",
        "UpToOneSecond",
        "AsynchronousReplicas",
    ]


def test_what_a_service_that_forbids_config_does_not_tell_is_unknown_not_false() -> None:
    silent = StoreFacts("id", "master", "7.0", "unknown", 0.0, info={"maxmemory_policy": "noeviction"})
    assert (judge(doubts(silent, LEASE)).status, judge(doubts(silent, LEASE)).reason) == (
        "Unknown",
        "NotTold",
    )


def test_what_such_a_service_tells_by_info_is_known() -> None:
    evicts = StoreFacts(
        "id", "master", "7", "unknown", 0.0, info={"maxmemory_policy": "allkeys-lfu", "maxmemory": "1"}
    )
    assert (judge(doubts(evicts, LEASE)).status, judge(doubts(evicts, LEASE)).reason) == (
        "False",
        "EvictsKeys",
    )
    guarded = StoreFacts(
        "id", "master", "7", "unknown", 0.0, info={"connected_slaves": "1", "min_slaves_good_slaves": "1"}
    )
    assert [(doubt.reason, doubt.known) for doubt in doubts(guarded, LEASE)] == [
        ("AsynchronousReplicas", True),
        ("SplitBrainPossible", False),
        ("NotTold", False),
    ]


def test_the_metric_has_one_series_for_each_store() -> None:
    def value(reason: str) -> float | None:
        return REGISTRY.get_sample_value("perdure_store_durable", {"store": "test", "reason": reason})

    metrics.tell_durable("test", Durability("False", "UpToOneSecond"))
    assert value("UpToOneSecond") == 0
    metrics.tell_durable("test", Durability("True", "EveryWriteSynced"))
    assert (value("UpToOneSecond"), value("EveryWriteSynced")) == (None, 1)
