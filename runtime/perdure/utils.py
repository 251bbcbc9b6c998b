"""Reading step signatures: which parameter is an event, the context or a resource; what comes back."""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from typing_extensions import TypeAliasType

from perdure.collect import Collect, Take
from perdure.errors import WorkflowValidationError
from perdure.events import Event
from perdure.resource import Resource, ResourceDescriptor

BUSY_WAIT_DELAY = 0.01

_ASYNC_STREAMS = (AsyncGenerator, AsyncIterable, AsyncIterator)


@dataclass(frozen=True, slots=True)
class Slot:
    """An event parameter. take: for a list, how many events are enough; None waits for all."""

    name: str
    types: tuple[type[Event], ...]
    is_list: bool = False
    take: int | None = None


@dataclass(frozen=True, slots=True)
class ResourceParameter:
    """A parameter that `Annotated[annotation, definition]` has injected."""

    name: str
    definition: ResourceDescriptor
    annotation: Any


@dataclass(frozen=True, slots=True)
class StepSignatureSpec:
    """What a step's signature says. return_declared: whether it says what comes back."""

    qualname: str
    slots: tuple[Slot, ...]
    context_parameter: str | None
    context_state_type: Any
    resources: tuple[ResourceParameter, ...]
    return_types: tuple[type[Event], ...]
    return_list_types: tuple[type[Event], ...]
    return_declared: bool
    is_async: bool
    problems: tuple[str, ...] = ()

    @property
    def accepted_events(self) -> tuple[type[Event], ...]:
        return tuple(kind for slot in self.slots for kind in slot.types)


def inspect_signature(
    func: Callable[..., Any], localns: Mapping[str, Any] | None = None
) -> StepSignatureSpec:
    """Read `func`'s annotations; names in postponed ones are looked up in `localns` as well.

    Raises WorkflowValidationError when a name in an annotation isn't defined.
    """
    qualname = getattr(func, "__qualname__", repr(func))
    hints = _resolve_hints(func, qualname, localns)
    slots: list[Slot] = []
    resources: list[ResourceParameter] = []
    problems: list[str] = []
    context_parameter: str | None = None
    context_state_type: Any = None
    for parameter in inspect.signature(func).parameters.values():
        annotation = hints.get(parameter.name)
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name not in hints or variadic:
            continue
        base, metadata = _strip(annotation)
        descriptor = next((m for m in metadata if isinstance(m, ResourceDescriptor)), None)
        if descriptor is not None:
            if isinstance(descriptor, Resource) and descriptor.localns is None:
                descriptor.localns = localns
            resources.append(ResourceParameter(parameter.name, descriptor, base))
            continue
        context = _context_class(base)
        if context is not None:
            context_parameter = parameter.name
            context_state_type = next(iter(get_args(context)), context_state_type)
            continue
        slot, problem = _slot(parameter.name, base, metadata)
        if slot is not None:
            slots.append(slot)
        if problem is not None:
            problems.append(problem)
    if isinstance(context_state_type, TypeVar) or context_state_type is Any:
        context_state_type = None
    returned = hints.get("return", inspect.Signature.empty)
    bare, listed = _return_types(returned)
    if inspect.isasyncgenfunction(func) or any(
        get_origin(member) in _ASYNC_STREAMS or member in _ASYNC_STREAMS for member in _members(returned)
    ):
        problems.append(
            "async generators can't be steps; return list[E], or send events with ctx.send_event as they come"
        )
    return StepSignatureSpec(
        qualname=qualname,
        slots=tuple(slots),
        context_parameter=context_parameter,
        context_state_type=context_state_type,
        resources=tuple(resources),
        return_types=bare,
        return_list_types=listed,
        return_declared=returned is not inspect.Signature.empty,
        # Either may be a coroutine function: a decorator around a step can be plain or async by itself.
        is_async=inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(inspect.unwrap(func)),
        problems=tuple(problems),
    )


def validate_step_signature(spec: StepSignatureSpec) -> None:
    """Raise WorkflowValidationError unless `spec` is that of a step."""
    name = spec.qualname
    if spec.problems:
        raise WorkflowValidationError(f"step {name}: {spec.problems[0]}")
    if not spec.slots:
        raise WorkflowValidationError(
            f"step {name}: Step signature must have at least one parameter annotated as type Event"
        )
    if not spec.return_declared:
        raise WorkflowValidationError(
            f"step {name}: the return type is not annotated; say which events it returns, or None"
        )
    lists = [slot for slot in spec.slots if slot.is_list]
    if len(lists) > 1:
        raise WorkflowValidationError(
            f"step {name}: at most one parameter may be a list of events, found"
            f" {' and '.join(repr(slot.name) for slot in lists)}"
        )
    if len(spec.slots) == 1:
        return
    if lists:
        raise WorkflowValidationError(
            f"step {name}: the list parameter {lists[0].name!r} can't be combined with other event"
            " parameters; take a single list[E], or several single events"
        )
    for slot in spec.slots:
        if len(slot.types) > 1:
            raise WorkflowValidationError(
                f"step {name}: a step with several event parameters needs one event type for each, but"
                f" {slot.name!r} has {len(slot.types)}; split it into steps that take one event each"
            )


def is_free_function(qualname: str) -> bool:
    """Whether a qualified name is that of a function outside any class. Raises ValueError if empty."""
    parts = qualname.split(".")
    if not qualname or not all(parts):
        raise ValueError(f"{qualname!r} is not a qualified name")
    return len(parts) == 1 or parts[-2] == "<locals>"


def get_steps_from_class(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    """The decorated functions of `cls` by name: methods, and free functions registered on this class."""
    steps: dict[str, Callable[..., Any]] = {
        name: member for name, member in inspect.getmembers(cls, inspect.isfunction) if _is_step(member)
    }
    steps.update(getattr(cls, "_step_functions", {}))
    return steps


def get_steps_from_instance(instance: Any) -> dict[str, Callable[..., Any]]:
    """As get_steps_from_class, with methods bound to `instance`."""
    cls = type(instance)
    steps: dict[str, Callable[..., Any]] = {
        # By the class's members: looking at the instance's would run its properties.
        name: getattr(instance, name)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if _is_step(member)
    }
    steps.update(getattr(cls, "_step_functions", {}))
    return steps


def _is_step(member: Any) -> bool:
    return hasattr(member, "_step_config")


def _resolve_hints(
    func: Callable[..., Any], qualname: str, localns: Mapping[str, Any] | None
) -> dict[str, Any]:
    try:
        return get_type_hints(func, localns=dict(localns or {}), include_extras=True)
    except NameError as error:
        raise WorkflowValidationError(
            f"step {qualname}: an annotation names {error.name!r}, which isn't defined where the step is"
            " decorated; define or import it before the step (not under TYPE_CHECKING)"
        ) from error
    except (TypeError, SyntaxError, AttributeError) as error:
        raise WorkflowValidationError(f"step {qualname}: an annotation can't be read: {error}") from error


def _strip(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation without its aliases and Annotated, and the metadata found there."""
    metadata: tuple[Any, ...] = ()
    while True:
        if isinstance(annotation, TypeAliasType) or type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation, *found = get_args(annotation)
            metadata += tuple(found)
        else:
            return annotation, metadata


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, flat and without None; anything else is its own only member."""
    base, _ = _strip(annotation)
    if get_origin(base) in (Union, types.UnionType):
        for member in get_args(base):
            yield from _members(member)
    elif base is not type(None) and base is not None:
        yield base


def _is_event(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, Event)


def _context_class(annotation: Any) -> Any:
    """The Context class or alias in `annotation`. By name: the class itself imports this module."""
    for member in _members(annotation):
        cls = get_origin(member) or member
        if isinstance(cls, type) and cls.__name__ == "Context":
            return member
    return None


def _slot(name: str, base: Any, metadata: tuple[Any, ...]) -> tuple[Slot | None, str | None]:
    """The event parameter that an annotation declares, or what is wrong with it; neither if it is none."""
    collect = next((m for m in metadata if isinstance(m, Collect)), None)
    members = list(_members(base))
    lists = [member for member in members if get_origin(member) is list]
    if lists:
        kinds = [kind for member in lists for kind in _members(get_args(member)[0])]
        if not any(_is_event(kind) for kind in kinds):
            return None, _not_a_list(name) if collect else None
        if len(lists) != len(members) or not all(_is_event(kind) for kind in kinds):
            return None, f"parameter {name!r} mixes a list of events with something else; take list[E] alone"
        cardinality = collect.cardinality if collect else None
        take = cardinality.n if isinstance(cardinality, Take) else None
        return Slot(name, tuple(dict.fromkeys(kinds)), is_list=True, take=take), None
    if collect is not None:
        return None, _not_a_list(name)
    if not any(_is_event(member) for member in members):
        return None, None
    others = [member for member in members if not _is_event(member)]
    if others:
        return None, f"parameter {name!r} is an event or {others[0]!r}; an event parameter takes events only"
    return Slot(name, tuple(dict.fromkeys(members))), None


def _not_a_list(name: str) -> str:
    return f"parameter {name!r} is marked Collect, but isn't annotated as list[E] of events"


def _return_types(annotation: Any) -> tuple[tuple[type[Event], ...], tuple[type[Event], ...]]:
    """The event types returned alone, and those returned in lists."""
    if annotation is inspect.Signature.empty:
        return (), ()
    bare: dict[type[Event], None] = {}
    listed: dict[type[Event], None] = {}
    for member in _members(annotation):
        if _is_event(member):
            bare[member] = None
        elif get_origin(member) is list:
            listed.update((kind, None) for kind in _members(get_args(member)[0]) if _is_event(kind))
    return tuple(bare), tuple(listed)
