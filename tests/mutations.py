"""Breaks a function on purpose, for tests that must find it."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest


def mutate(patch: pytest.MonkeyPatch, where: Any, name: str, old: str, new: str, **known: Any) -> Any:
    """Put `new` in the place of `old` in the source of the function `name` of `where`; returns what it was.

    known: names for `new` that the function's module doesn't have.
    """
    function = getattr(where, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} has no `{old}` any more: break it in another way"
    scope = {**function.__globals__, **known}
    exec(compile(f"from __future__ import annotations\n{source.replace(old, new)}", name, "exec"), scope)
    patch.setattr(where, name, scope[name])
    return function
