"""What a Redis client raises, as what a caller can do about it: wait (Unavailable) or call a person (Access)."""

from __future__ import annotations

import re
import ssl

from redis import exceptions

from perdure.errors import StoreAccessError, StoreError, StoreUnavailableError

_WAIT = {
    "LOADING": "is loading its data; wait until it has",
    "BUSY": "is busy with a script; wait, or look for who runs a long one",
    "OOM": "is at its maxmemory and takes no writes; give it more, or remove what isn't needed",
    "MISCONF": "can't save to its disk and takes no writes; look at its log and its disk",
    "NOREPLICAS": "has too few replicas and takes no writes; bring them back",
    "READONLY": "is a read-only replica; point the URL at the primary",
    "MASTERDOWN": "is a replica without its primary; wait, or bring that back",
    "CLUSTERDOWN": "belongs to a cluster that is down; wait, or bring that back",
    "TRYAGAIN": "belongs to a cluster that is moving these keys; wait",
}
_MEND = {
    "NOAUTH": "wants a password and the URL has none",
    "WRONGPASS": "refuses the user name or password of the URL",
    "NOPERM": "refuses the command, key or channel to this user; see the ACL in the documentation",
    "MOVED": "is a node of a Redis Cluster; begin its URL with redis+cluster://",
    "ASK": "is a node of a Redis Cluster; begin its URL with redis+cluster://",
}
_BY_TYPE: dict[type[Exception], str] = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}
# Who answers so isn't the one to ask, now at least: another may have its place by the next call.
_MISPLACED = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN")
# Redis 6.2 wraps what a script's command answered: "ERR Error running script (…): …: -OOM command …".
_WRAPPED = re.compile(r"(?:^|[:\s]-?|-)([A-Z]{3,12}) ")

# "ERR unknown command 'AUTH', with args beginning with: 'user' 'password'": a password, or a value.
_REPEATED = re.compile(r",? with args beginning with:.*", re.DOTALL)


def translate(error: BaseException, where: str) -> StoreError:
    """`error`, of a client of the server at `where`, as one of this project's.

    Takes from `error` itself what a server repeats of a command: it is printed with its cause.
    """
    error.args = tuple(_REPEATED.sub("", part) if isinstance(part, str) else part for part in error.args)
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        # Before the connection errors, of which the client makes it one.
        code = "NOAUTH" if "required" in str(error).lower() else "WRONGPASS"
        return StoreAccessError(f"{where} {_MEND[code]} ({error})")
    code = _code(error)
    if code in _WAIT:
        return StoreUnavailableError(f"{where} {_WAIT[code]} ({error})")
    if code in _MEND:
        return StoreAccessError(f"{where} {_MEND[code]} ({error})")
    if (refused := _tls(error)) is not None:
        return StoreAccessError(
            f"{where} and this client don't agree on TLS ({refused}); look at the URL's ssl_ca_certs, ssl_certfile"
            " and ssl_keyfile, at the name in its certificate, and whether that port speaks TLS at all"
        )
    if isinstance(
        error, exceptions.ConnectionError | exceptions.TimeoutError | TimeoutError | OSError | EOFError
    ):
        told = str(error).rstrip(".") or type(error).__name__
        return StoreUnavailableError(f"{where} doesn't answer; is it up, and is the address right? ({told})")
    if isinstance(error, exceptions.InvalidResponse):
        return StoreUnavailableError(f"what answers at {where} isn't a Redis: {error}")
    return StoreError(f"{where} answered what wasn't expected: {type(error).__name__}: {error}")


def _tls(error: BaseException) -> ssl.SSLError | None:
    """What TLS refused, if that is behind `error`. A connection that only broke is none of it."""
    # The client library makes another error of it, from within its handler.
    for behind in (error, error.__cause__, error.__context__):
        if isinstance(behind, ssl.SSLError) and not isinstance(
            behind, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
        ):
            return behind
    return None


def misplaced(error: BaseException) -> bool:
    """Whether `error`, a server's answer, says that this server isn't the one to ask."""
    return _code(error) in _MISPLACED


def _code(error: BaseException) -> str:
    for kind, code in _BY_TYPE.items():
        if isinstance(error, kind):
            return code
    if isinstance(error, exceptions.ResponseError):
        message = str(error)
        for word in _WRAPPED.findall(message):
            if word in _WAIT or word in _MEND:
                return str(word)
        if "executing the script can't" in message:
            return "NOPERM"
    return ""
