"""What a store's URL says, and what is wrong with one that says nothing usable."""

from __future__ import annotations

import pytest
from redis.exceptions import AskError, MovedError, ReadOnlyError

from perdure.store.topology import ASKING, Cluster
from perdure.store.url import Address, Kind, Node


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "where"),
    [
        ("redis://", Kind.SINGLE, [("localhost", 6379)], "Redis at localhost:6379"),
        ("redis://u:secret@h:1/2", Kind.SINGLE, [("h", 1)], "Redis at h:1"),
        ("rediss://[::1]:1", Kind.SINGLE, [("::1", 1)], "Redis at [::1]:1"),
        ("unix:///a%20b.sock?db=1", Kind.SINGLE, [("/a b.sock", 0)], "Redis at /a b.sock"),
        (
            "redis+sentinel://:secret@a,b:1/mine/3",
            Kind.SENTINEL,
            [("a", 26379), ("b", 1)],
            "Redis mine of the sentinels at a:26379,b:1",
        ),
        ("rediss+cluster://a:1,b/", Kind.CLUSTER, [("a", 1), ("b", 6379)], "Redis Cluster at a:1,b:6379"),
        (
            "redis+cluster://[::1]:1,b",
            Kind.CLUSTER,
            [("::1", 1), ("b", 6379)],
            "Redis Cluster at [::1]:1,b:6379",
        ),
    ],
)
def test_a_url_names_its_servers(url: str, kind: Kind, nodes: list[tuple[str, int]], where: str) -> None:
    address = Address(url)
    assert (address.kind, list(address.nodes), address.where) == (kind, nodes, where)


def test_user_password_and_database_reach_the_store_and_its_sentinels_get_their_own() -> None:
    address = Address(
        "redis+sentinel://us%40er:p%2Fw@a/mine/3?sentinel_username=su&sentinel_password=sp&health_check_interval=9"
    )
    store, sentinel = address.connection(Node("x", 1)), address.sentinel_connection(Node("a", 2))
    assert (store.username, store.password, store.db) == ("us@er", "p/w", 3)
    assert (sentinel.username, sentinel.password, sentinel.db) == ("su", "sp", 0)
    assert store.health_check_interval == 0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://secret@h", "not a Redis URL"),
        ("redis+proxy://secret@h", "not a Redis URL"),
        ("redis://:secret@h:port", "not a Redis URL"),
        ("redis://:secret@h,g:1/0", "not a Redis URL"),
        ("redis+sentinel://:secret@h", "names no master"),
        ("redis+cluster://:secret@h/2", "only 0"),
        ("redis://:secret@h?ssl_ca_certs=/ca", "begin it with rediss"),
        ("redis://:secret@h?sll_ca_certs=/ca", "unknown option sll_ca_certs"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Address(url)
    assert "secret" not in str(caught.value)


def test_a_cluster_is_learned_from_its_redirections() -> None:
    a, b, c = Node("a", 1), Node("b", 1), Node("c", 1)
    cluster = Cluster([a, b])
    key = "perdure:n:{run}:meta"
    assert cluster.node(key) == a
    assert cluster.redirected(key, a, [ReadOnlyError("no")]) is None
    assert cluster.redirected(key, a, [MovedError("5 c:1")]) == (c, b"")
    assert cluster.node("perdure:n:{run}:log") == c
    assert cluster.redirected(key, c, [AskError("5 :2")]) == (Node("c", 2), ASKING)
    assert cluster.node(key) == c, "a slot that is on its way is not there yet"
    cluster.leave(c)
    assert cluster.node(key) == a
    cluster.leave(a)
    assert cluster.node(key) == b, "the one that may be wrong is asked last"
