"""`@step` and `@catch_error`: they read a function's signature once and leave the function as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, overload

from perdure.errors import WorkflowValidationError
from perdure.events import Event, StepFailedEvent
from perdure.utils import (
    ResourceParameter,
    Slot,
    StepSignatureSpec,
    inspect_signature,
    is_free_function,
    validate_step_signature,
)

if TYPE_CHECKING:
    from perdure.retry_policy import RetryPolicy

__all__ = [
    "CatchErrorHandler",
    "ResourceParameter",
    "Slot",
    "StepConfig",
    "StepFunction",
    "StepGraphCheck",
    "StepRole",
    "WorkflowGraphCheck",
    "catch_error",
    "make_step_function",
    "step",
]

WorkflowGraphCheck = Literal["reachability", "terminal_event", "dead_end"]
StepGraphCheck = Literal["reachability", "dead_end"]
StepRole = Literal["step", "catch_error"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

_STEP_CHECKS = frozenset({"reachability", "dead_end"})


@dataclass(frozen=True, slots=True)
class StepConfig:
    """All that is known of a step before it runs.

    return_types: the events it returns alone; return_list_types: those it returns in a list.
    num_workers: how many executions go on at once, per run.
    for_steps: the steps a catch_error handler covers; None means all that no other handler covers.
    """

    name: str
    slots: tuple[Slot, ...]
    context_parameter: str | None
    context_state_type: type[Any] | None
    resources: tuple[ResourceParameter, ...]
    return_types: tuple[type[Event], ...]
    return_list_types: tuple[type[Event], ...]
    num_workers: int
    retry_policy: RetryPolicy | None
    accept_event_subclasses: bool
    skip_graph_checks: frozenset[str]
    role: StepRole
    for_steps: tuple[str, ...] | None
    max_recoveries: int
    is_async: bool

    @property
    def accepted_events(self) -> tuple[type[Event], ...]:
        """The types of all event parameters, in order."""
        return tuple(kind for slot in self.slots for kind in slot.types)


@dataclass(frozen=True)
class CatchErrorHandler:
    """A handler of failures: which steps it covers, and how often one lineage may be recovered."""

    step_name: str
    for_steps: list[str] | None
    max_recoveries: int


class StepFunction(Protocol[P, R_co]):
    """A function that `@step` or `@catch_error` has read."""

    _step_config: StepConfig
    __name__: str
    __qualname__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


@overload
def step(func: F, /) -> F: ...


@overload
def step(
    *,
    workflow: type[Any] | None = None,
    num_workers: int = 4,
    retry_policy: RetryPolicy | None = None,
    skip_graph_checks: Collection[StepGraphCheck] | None = None,
    accept_event_subclasses: bool = False,
) -> Callable[[F], F]: ...


def step(
    func: Any = None,
    *,
    workflow: type[Any] | None = None,
    num_workers: int = 4,
    retry_policy: RetryPolicy | None = None,
    skip_graph_checks: Collection[StepGraphCheck] | None = None,
    accept_event_subclasses: bool = False,
) -> Any:
    """Make a function a step: the events it takes and returns are read from its annotations.

    workflow: the class that a free function belongs to. num_workers: executions at once, per run.
    accept_event_subclasses: take subclasses of the annotated events too (default: the exact type).
    Raises WorkflowValidationError when the signature isn't that of a step.
    """

    def decorate(inner: Any, frame: FrameType) -> Any:
        decorated = make_step_function(
            inner,
            num_workers=num_workers,
            retry_policy=retry_policy,
            localns=_visible_names(frame),
            skip_graph_checks=skip_graph_checks,
            accept_event_subclasses=accept_event_subclasses,
        )
        if is_free_function(inner.__qualname__):
            if workflow is None:
                raise WorkflowValidationError(
                    f"step {inner.__qualname__} is not a method: say whose it is, @step(workflow=...)"
                )
            workflow.add_step(inner)
        return decorated

    return _as_decorator(func, decorate)


@overload
def catch_error(func: F, /) -> F: ...


@overload
def catch_error(*, for_steps: list[str] | None = None, max_recoveries: int = 1) -> Callable[[F], F]: ...


def catch_error(func: Any = None, *, for_steps: list[str] | None = None, max_recoveries: int = 1) -> Any:
    """Make a method the handler of steps that failed for good; it takes a StepFailedEvent.

    for_steps: the steps it covers; None covers all that no other handler does.
    max_recoveries: how often one lineage of events may be recovered.
    Raises WorkflowValidationError on wrong arguments or another event parameter.
    """
    if not _is_count(max_recoveries):
        raise WorkflowValidationError(
            f"@catch_error: max_recoveries must be an integer >= 1, not {max_recoveries!r}"
        )
    if for_steps is not None and not (
        isinstance(for_steps, list) and all(isinstance(name, str) for name in for_steps)
    ):
        raise WorkflowValidationError(
            f"@catch_error: for_steps must be None or a list of step names, not {for_steps!r}"
        )

    def decorate(inner: Any, frame: FrameType) -> Any:
        decorated = make_step_function(inner, num_workers=1, localns=_visible_names(frame))
        config = decorated._step_config
        if len(config.slots) != 1 or config.slots[0] != Slot(config.slots[0].name, (StepFailedEvent,)):
            raise WorkflowValidationError(
                f"@catch_error: {config.name} must accept StepFailedEvent as its only event parameter"
            )
        inner._step_config = replace(
            config,
            role="catch_error",
            for_steps=None if for_steps is None else tuple(for_steps),
            max_recoveries=max_recoveries,
        )
        return inner

    return _as_decorator(func, decorate)


def make_step_function(
    func: Callable[P, R_co],
    num_workers: int = 4,
    retry_policy: RetryPolicy | None = None,
    localns: Mapping[str, Any] | None = None,
    skip_graph_checks: Collection[str] | None = None,
    accept_event_subclasses: bool = False,
) -> StepFunction[P, R_co]:
    """Read `func`'s signature into `func._step_config`. Raises WorkflowValidationError."""
    spec = inspect_signature(func, localns=localns)
    validate_step_signature(spec)
    if not _is_count(num_workers):
        raise WorkflowValidationError(
            f"step {spec.qualname}: num_workers must be an integer greater than 0, not {num_workers!r}"
        )
    skipped = frozenset(skip_graph_checks or ())
    if not skipped <= _STEP_CHECKS:
        raise WorkflowValidationError(
            f"step {spec.qualname}: skip_graph_checks knows {', '.join(sorted(_STEP_CHECKS))};"
            f" not {', '.join(sorted(map(str, skipped - _STEP_CHECKS)))}"
        )
    decorated: Any = func
    decorated._step_config = _config(
        spec,
        name=decorated.__name__,
        num_workers=num_workers,
        retry_policy=retry_policy,
        skipped=skipped,
        accept_event_subclasses=accept_event_subclasses,
    )
    result: StepFunction[P, R_co] = decorated
    return result


def _config(
    spec: StepSignatureSpec,
    *,
    name: str,
    num_workers: int,
    retry_policy: RetryPolicy | None,
    skipped: frozenset[str],
    accept_event_subclasses: bool,
) -> StepConfig:
    return StepConfig(
        name=name,
        slots=spec.slots,
        context_parameter=spec.context_parameter,
        context_state_type=spec.context_state_type,
        resources=spec.resources,
        return_types=spec.return_types,
        return_list_types=spec.return_list_types,
        num_workers=num_workers,
        retry_policy=retry_policy,
        accept_event_subclasses=accept_event_subclasses,
        skip_graph_checks=skipped,
        role="step",
        for_steps=None,
        max_recoveries=1,
        is_async=spec.is_async,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _as_decorator(func: Any, decorate: Callable[[Any, FrameType], Any]) -> Any:
    """Serve `@name` and `@name(...)`: the frame given is that of the code the decorator stands in."""
    if func is not None:
        return decorate(func, sys._getframe(2))
    return lambda inner: decorate(inner, sys._getframe(1))


def _visible_names(frame: FrameType) -> dict[str, Any]:
    """Names that annotations at `frame` may mean: its locals, and those of the functions around it.

    Around it means further up the stack and in the same module: a class local to a function is built
    while that function runs.
    """
    found: dict[str, Any] = {}
    current: FrameType | None = frame
    namespace = frame.f_globals
    while current is not None:
        if current.f_globals is namespace and current.f_locals is not namespace:
            for name, value in current.f_locals.items():
                found.setdefault(name, value)
        current = current.f_back
    return found
