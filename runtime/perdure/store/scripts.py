"""The Lua scripts as the package's files have them, and how each server is told of one."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

NAMES = (
    "init",
    "acquire",
    "renew",
    "commit",
    "cut",
    "release",
    "send",
    "reopen",
    "advance",
    "finish",
    "set_desired",
    "facts",
)


class Script:
    """A script and the hash by which EVALSHA names it."""

    __slots__ = ("sha", "source")

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()


@cache
def script(name: str) -> Script:
    return Script(resources.files("perdure.store").joinpath("lua", f"{name}.lua").read_bytes())
