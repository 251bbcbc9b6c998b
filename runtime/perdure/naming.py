"""Classes by their qualified names: what a serialized value says of its type, and the way back."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from perdure.errors import IncompatibleError

Resolver = Callable[[str], Any]

# Set by a serializer while it validates, so that classes it knows (local ones, for instance) are
# found by the fields of an event too.
active_resolver: ContextVar[Resolver | None] = ContextVar("perdure_active_resolver", default=None)


def qualified_name(cls: type[Any]) -> str:
    """`module.QualName`; has `<locals>` in it when the class can't be imported."""
    return f"{cls.__module__}.{cls.__qualname__}"


def import_by_name(name: str) -> Any:
    """The object that `module.QualName` names. Raises IncompatibleError that says what is gone."""
    if "<locals>" in name:
        raise IncompatibleError(
            f"{name} is local to a function and can't be imported: move it to the top level of its"
            " module, or give it to the serializer by with_types()"
        )
    parts = name.split(".")
    failure: ModuleNotFoundError | None = None
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only the module itself may be missing (or be a class): a missing import inside it is a fault.
            missing = error.name or ""
            if module_name != missing and not module_name.startswith(missing + "."):
                raise IncompatibleError(
                    f"{name} can't be imported: module {module_name} needs {missing}, which isn't installed"
                ) from error
            failure = failure or error
            continue
        for depth, part in enumerate(parts[cut:]):
            if not hasattr(found, part):
                owner = ".".join(parts[: cut + depth])
                raise IncompatibleError(
                    f"{name} is gone: {owner} has no {part!r} any more; bring the name back (an alias"
                    " will do) or run the code that wrote this"
                ) from failure
            found = getattr(found, part)
        return found
    raise IncompatibleError(
        f"{name} is gone: no module {'.'.join(parts[:-1])!r} can be imported; install it or put it on"
        " the Python path"
    ) from failure


def resolve(name: str) -> Any:
    """As the active serializer resolves it, else by import."""
    resolver = active_resolver.get()
    return import_by_name(name) if resolver is None else resolver(name)


_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_run_id(run_id: str) -> None:
    """Raises ValueError for what can't name a run."""
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"run_id {run_id!r}: use 1 to 128 letters, digits, '.', '_' or '-'")
