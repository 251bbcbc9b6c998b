"""Every public name of the origin is where its users import it from."""

from __future__ import annotations

import functools
import importlib
import inspect
from abc import ABC, abstractmethod

import pytest

import perdure
from perdure import Workflow, step
from perdure.errors import PerdureError
from perdure.events import StartEvent, StopEvent

NAMES = {
    "": "Context Workflow catch_error step",
    "workflow": "Workflow",
    "decorators": "step catch_error StepConfig StepFunction StepRole CatchErrorHandler WorkflowGraphCheck "
    "StepGraphCheck make_step_function",
    "events": "Event StartEvent StopEvent InputRequiredEvent HumanResponseEvent StepFailedEvent "
    "WorkflowTimedOutEvent WorkflowCancelledEvent WorkflowFailedEvent IdleReleasedEvent InternalDispatchEvent "
    "StepStateChanged StepState UnhandledEvent WorkflowIdleEvent CollectionReleaseEvent DictLikeModel EventType "
    "UnreconstructedException SerializableEvent SerializableOptionalEvent SerializableException "
    "SerializableOptionalException SerializableEventType",
    "context": "Context BaseSerializer JsonSerializer PickleSerializer",
    "context.serializers": "BaseSerializer JsonSerializer PickleSerializer JsonPickleSerializer",
    "context.state_store": "DictState InMemoryStateStore StateStore UnserializableKeyWarning MODEL_T",
    "handler": "WorkflowHandler",
    "resource": "Resource ResourceConfig ResourceManager ResourceDefinition ResourceDescriptor",
    "retry_policy": "RetryPolicy RetryCondition WaitStrategy StopCondition RetryInfo time_unit_type retry_policy "
    "retry_if_exception retry_if_exception_type retry_if_not_exception_type retry_unless_exception_type "
    "retry_if_exception_message retry_if_not_exception_message retry_if_exception_cause_type retry_any retry_all "
    "retry_always retry_never wait_fixed wait_none wait_exponential wait_incrementing wait_random "
    "wait_exponential_jitter wait_random_exponential wait_full_jitter wait_chain wait_combine stop_after_attempt "
    "stop_after_delay stop_before_delay stop_any stop_all stop_never ConstantDelayRetryPolicy "
    "ExponentialBackoffRetryPolicy",
    "collect": "Collect All Take Cardinality",
    "errors": "WorkflowValidationError WorkflowConfigurationError WorkflowRuntimeError WorkflowTimeoutError "
    "WorkflowCancelledByUser WorkflowDone WorkflowStepDoesNotExistError ContextSerdeError ContextStateError",
    "types": "StopEventT RunResultT",
    "testing": "WorkflowTestRunner",
    "testing.runner": "WorkflowTestRunner WorkflowTestResult",
    "utils": "inspect_signature validate_step_signature StepSignatureSpec get_steps_from_class "
    "get_steps_from_instance is_free_function BUSY_WAIT_DELAY",
    "representation": "get_workflow_representation WorkflowGraph WorkflowGraphEdge WorkflowGraphNode "
    "WorkflowNodeBase WorkflowStepNode WorkflowEventNode WorkflowExternalNode WorkflowResourceNode "
    "WorkflowResourceConfigNode WorkflowGenericNode",
}


@pytest.mark.parametrize("module", NAMES)
def test_a_module_has_the_names_that_the_origins_users_import(module: str) -> None:
    found = importlib.import_module(f"perdure.{module}".rstrip("."))
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_the_public_surface_is_listed_and_there() -> None:
    assert perdure.__all__ == sorted(perdure.__all__)
    assert {name for name in perdure.__all__ if not hasattr(perdure, name)} == set()


AWAITED = {
    "context.Context": "wait_for_event running_steps",
    "handler.WorkflowHandler": "stop_event_result cancel_run send_event",
    "context.state_store.InMemoryStateStore": "get set get_state set_state clear",
    "resource.ResourceManager": "get set",
    "testing.WorkflowTestRunner": "run",
}


@pytest.mark.parametrize("name", AWAITED)
def test_what_the_origins_users_await_and_nothing_else_of_theirs_is_a_coroutine(name: str) -> None:
    module, _, cls = name.rpartition(".")
    members = inspect.getmembers(
        getattr(importlib.import_module(f"perdure.{module}"), cls), inspect.iscoroutinefunction
    )
    own = {"sleep", "checkpoint", "append", "extend", "resolve", "shared"}  # beyond the origin
    assert {n for n, _ in members if not n.startswith("_")} - own == set(AWAITED[name].split())


def test_what_the_root_offers_hides_no_module() -> None:
    for name in NAMES:
        if name:
            module = importlib.import_module(f"perdure.{name}")
            assert functools.reduce(getattr, name.split("."), perdure) is module


@pytest.mark.parametrize("name", NAMES["errors"].split())
def test_every_error_hangs_under_one_root(name: str) -> None:
    error = getattr(importlib.import_module("perdure.errors"), name)
    assert issubclass(error, PerdureError)
    assert error.__name__ == name


def test_a_workflow_may_be_an_abstract_class_as_it_has_no_metaclass_of_its_own() -> None:
    class Base(Workflow, ABC):
        @abstractmethod
        def name(self) -> str: ...

        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=self.name())

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
