"""Durable Python workflows for Kubernetes: a run is a resource, its state is a snapshot in Redis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.context import Context
    from perdure.decorators import catch_error, step
    from perdure.errors import PerdureError
    from perdure.handler import WorkflowHandler
    from perdure.workflow import Workflow

__all__ = ["Context", "PerdureError", "Workflow", "WorkflowHandler", "catch_error", "step"]
__version__ = "0.1.0"

# Fetched when they are asked for: a program that takes one module of Perdure, as the operator and the
# command line do, doesn't wait for the others.
_HOMES = {
    "Context": "context",
    "PerdureError": "errors",
    "Workflow": "workflow",
    "WorkflowHandler": "handler",
    "catch_error": "decorators",
    "step": "decorators",
}
# What an author may reach as `perdure.events` and so on, without importing it by name.
_MODULES = frozenset(
    [
        "collect",
        "context",
        "decorators",
        "errors",
        "events",
        "handler",
        "resource",
        "retry_policy",
        "testing",
        "types",
        "utils",
        "workflow",
    ]
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"perdure.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"perdure.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
