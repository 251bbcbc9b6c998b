"""A store's URL, read once: which servers to ask, how to get in, and what to call them before people."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from perdure.errors import StoreAccessError

_FORMS = (
    "not a Redis URL: it must look like redis://[[USER]:PASSWORD@]HOST:6379/0, rediss://… for TLS,"
    " redis+sentinel://…@HOST:26379,HOST:26379/MASTER, redis+cluster://…@HOST:6379,HOST:6379 or"
    " unix:///path/to.sock"
)
# What would change the meaning of replies, or repeat commands, is not the URL's to say. Other clients
# read it too, so it is no error.
_NOT_FROM_URL = (
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "legacy_responses",
    "max_connections",
    "protocol",
    "retry_on_error",
    "retry_on_timeout",
    "socket_timeout",
    "socket_connect_timeout",
    "timeout",
)
_OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "password",
        "sentinel_password",
        "sentinel_username",
        "socket_keepalive",
        "socket_read_size",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_cert_reqs",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_password",
        "username",
    }
)


@cache
def _named() -> dict[str, Any]:
    """What a connection calls itself. Left out, the library reads its own version from the disk for each."""
    from perdure import __version__

    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # an older library
        return {"lib_name": "perdure", "lib_version": __version__}
    return {"driver_info": DriverInfo("perdure", __version__)}


class Kind(Enum):
    SINGLE = ""
    SENTINEL = "+sentinel"
    CLUSTER = "+cluster"


class Node(NamedTuple):
    """A server: a host (or a unix socket's path) and its port (0 for a socket)."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address:
    """What a URL says. `where` names it without its secrets.

    nodes: the servers it names: the one, the sentinels, or some of a cluster. master: what the sentinels
    call theirs.
    """

    def __init__(self, url: str) -> None:
        """Raises ValueError, which doesn't repeat the URL: it may hold a password."""
        try:
            parts = urlsplit(url)
            scheme, _, kind = parts.scheme.partition("+")
            self.kind = Kind(f"+{kind}" if kind else "")
            user, at, hosts = parts.netloc.rpartition("@")
            path = parts.path
            self.master = ""
            if self.kind is Kind.SENTINEL:
                self.master, _, path = (unquote(part) for part in path.lstrip("/").partition("/"))
            first, *others = hosts.split(",")
            if others and self.kind is Kind.SINGLE:
                raise ValueError(_FORMS)
            options: dict[str, Any] = dict(
                parse_url(urlunsplit((scheme, user + at + first, path, parts.query, "")))
            )
            port = 26379 if self.kind is Kind.SENTINEL else 6379
            self.nodes = (
                (Node(options["path"], 0),)
                if "path" in options
                else tuple(_node(host, port) for host in hosts.split(","))
            )
        except (ValueError, TypeError, KeyError):
            raise ValueError(_FORMS) from None
        self._class: type[AbstractConnection] = options.pop("connection_class", Connection)
        for name in (*_NOT_FROM_URL, "host", "port", "path"):
            options.pop(name, None)
        self._check(options)
        self._sentinel_options = {
            name.removeprefix("sentinel_"): options.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if name in options
        }
        self._options = options | _named()
        names = ",".join(map(str, self.nodes))
        self.where = {
            Kind.SINGLE: f"Redis at {names}",
            Kind.SENTINEL: f"Redis {self.master} of the sentinels at {names}",
            Kind.CLUSTER: f"Redis Cluster at {names}",
        }[self.kind]

    def _check(self, options: Mapping[str, Any]) -> None:
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise ValueError(f"the Redis URL has an unknown option {unknown[0]}; see docs/connections.md")
        tls = sorted(name for name in options if name.startswith("ssl_"))
        if tls and self._class is not SSLConnection:
            raise ValueError(f"the Redis URL has {tls[0]} without TLS; begin it with rediss")
        if self._class is UnixDomainSocketConnection and self.kind is not Kind.SINGLE:
            raise ValueError(_FORMS)
        if self.kind is Kind.SENTINEL and not self.master:
            raise ValueError(
                "the Redis URL names no master; it must look like redis+sentinel://HOST:26379/MASTER"
            )
        if self.kind is Kind.CLUSTER and options.get("db"):
            raise ValueError("the Redis URL names a database; a Redis Cluster has only 0")

    def connection(self, node: Node) -> AbstractConnection:
        """To `node`, not yet connected. Raises StoreAccessError when a certificate's file can't be read."""
        return self._connection(node, self._options)

    def sentinel_connection(self, node: Node) -> AbstractConnection:
        """As `connection`, with the sentinels' own user and password: the store's are not for them."""
        options = {
            name: value
            for name, value in self._options.items()
            if name not in ("username", "password", "db", "client_name")
        }
        return self._connection(node, options | self._sentinel_options)

    def _connection(self, node: Node, options: Mapping[str, Any]) -> AbstractConnection:
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            if name in options:
                try:
                    Path(options[name]).open("rb").close()
                except OSError as error:
                    raise StoreAccessError(
                        f"{self.where}: the URL's {name} can't be read: {error}"
                    ) from error
        place = {"host": node.host, "port": node.port} if node.port else {"path": node.host}
        return self._class(**place, **options, protocol=2, socket_timeout=None, retry=Retry(NoBackoff(), 0))


def _node(host: str, port: int) -> Node:
    parts = urlsplit(f"//{host}")
    return Node(unquote(parts.hostname or "localhost"), parts.port or port)
