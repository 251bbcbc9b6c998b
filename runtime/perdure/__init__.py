"""Durable Python workflows for Kubernetes: a run is a resource, its state is a snapshot in Redis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.checkpoint import Checkpoint
    from perdure.collect import All, Collect, Take
    from perdure.context import Context
    from perdure.context.serializers import BaseSerializer, JsonSerializer, PickleSerializer
    from perdure.decorators import catch_error, step
    from perdure.errors import (
        ContextSerdeError,
        ContextStateError,
        LeaseLostError,
        PerdureError,
        RunHeldError,
        StateLostError,
        StoreError,
        StoreUnavailableError,
        WorkflowCancelledByUser,
        WorkflowConfigurationError,
        WorkflowRuntimeError,
        WorkflowTimeoutError,
        WorkflowValidationError,
    )
    from perdure.events import (
        Event,
        HumanResponseEvent,
        InputRequiredEvent,
        StartEvent,
        StepFailedEvent,
        StopEvent,
        WorkflowCancelledEvent,
        WorkflowFailedEvent,
        WorkflowTimedOutEvent,
    )
    from perdure.handler import WorkflowHandler
    from perdure.resource import Resource, ResourceConfig, ResourceManager
    from perdure.retry_policy import RetryPolicy
    from perdure.workflow import Workflow

__all__ = [
    "All",
    "BaseSerializer",
    "Checkpoint",
    "Collect",
    "Context",
    "ContextSerdeError",
    "ContextStateError",
    "Event",
    "HumanResponseEvent",
    "InputRequiredEvent",
    "JsonSerializer",
    "LeaseLostError",
    "PerdureError",
    "PickleSerializer",
    "Resource",
    "ResourceConfig",
    "ResourceManager",
    "RetryPolicy",
    "RunHeldError",
    "StartEvent",
    "StateLostError",
    "StepFailedEvent",
    "StopEvent",
    "StoreError",
    "StoreUnavailableError",
    "Take",
    "Workflow",
    "WorkflowCancelledByUser",
    "WorkflowCancelledEvent",
    "WorkflowConfigurationError",
    "WorkflowFailedEvent",
    "WorkflowHandler",
    "WorkflowRuntimeError",
    "WorkflowTimedOutEvent",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
    "catch_error",
    "step",
]
__version__ = "0.1.0"

# Fetched when they are asked for: a program that takes one module of Perdure, as the operator and the
# command line do, doesn't wait for the others.
_MODULES = {
    "checkpoint": ("Checkpoint",),
    "collect": ("All", "Collect", "Take"),
    "context": ("Context",),
    "context.serializers": ("BaseSerializer", "JsonSerializer", "PickleSerializer"),
    "decorators": ("catch_error", "step"),
    "errors": (
        "ContextSerdeError",
        "ContextStateError",
        "LeaseLostError",
        "PerdureError",
        "RunHeldError",
        "StateLostError",
        "StoreError",
        "StoreUnavailableError",
        "WorkflowCancelledByUser",
        "WorkflowConfigurationError",
        "WorkflowRuntimeError",
        "WorkflowTimeoutError",
        "WorkflowValidationError",
    ),
    "events": (
        "Event",
        "HumanResponseEvent",
        "InputRequiredEvent",
        "StartEvent",
        "StepFailedEvent",
        "StopEvent",
        "WorkflowCancelledEvent",
        "WorkflowFailedEvent",
        "WorkflowTimedOutEvent",
    ),
    "handler": ("WorkflowHandler",),
    "representation": (),
    "resource": ("Resource", "ResourceConfig", "ResourceManager"),
    "retry_policy": ("RetryPolicy",),
    "testing": (),
    "types": (),
    "utils": (),
    "workflow": ("Workflow",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"perdure.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"perdure.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
