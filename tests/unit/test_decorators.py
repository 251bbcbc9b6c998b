"""`@step` and `@catch_error`: what is read from signatures, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import wraps
from typing import Annotated, Any, ClassVar, Generic, Optional, TypeVar, Union

import pytest
from pydantic import BaseModel

from perdure.collect import All, Collect, Take
from perdure.decorators import Slot, StepConfig, catch_error, make_step_function, step
from perdure.errors import WorkflowValidationError
from perdure.events import Event, StartEvent, StepFailedEvent, StopEvent
from perdure.resource import Resource
from perdure.utils import (
    get_steps_from_class,
    get_steps_from_instance,
    inspect_signature,
    is_free_function,
    validate_step_signature,
)

T = TypeVar("T")


class Context(Generic[T]):
    """Recognised by its name alone."""


class A(Event):
    pass


class B(Event):
    pass


class C(Event):
    pass


class Model(BaseModel):
    count: int = 0


def config_of(func: Any) -> StepConfig:
    config: StepConfig = make_step_function(func)._step_config
    return config


def test_step_returns_the_same_function_with_its_configuration() -> None:
    async def convert(self: Any, ev: A) -> B: ...

    convert.__qualname__ = "W.convert"
    assert step(convert) is convert
    assert convert._step_config == StepConfig(
        name="convert",
        slots=(Slot("ev", (A,), is_list=False, take=None),),
        context_parameter=None,
        context_state_type=None,
        resources=(),
        return_types=(B,),
        return_list_types=(),
        num_workers=4,
        retry_policy=None,
        accept_event_subclasses=False,
        skip_graph_checks=frozenset(),
        role="step",
        for_steps=None,
        max_recoveries=1,
        is_async=True,
    )


def test_arguments_of_step_are_kept() -> None:
    class W:
        @step(num_workers=2, skip_graph_checks=["dead_end"], accept_event_subclasses=True)
        def plain(self, ev: A) -> None: ...

    config = W.plain._step_config
    assert (config.num_workers, config.accept_event_subclasses, config.is_async) == (2, True, False)
    assert config.skip_graph_checks == {"dead_end"}
    assert config.return_types == ()


async def unions(
    whatever: Optional[A | Union[B, C]],  # noqa: UP007, UP045
    ctx: Context[Model],
    x: int,
    y: str = "",
    *args: A,
    **kw: B,
) -> Optional[A | B]: ...  # noqa: UP045


async def lists(items: list[A | B]) -> list[A | B] | list[C] | C | None: ...


async def taken(items: Annotated[list[A], Collect(Take(3))]) -> list[B] | None: ...


async def all_of(items: Annotated[list[A], Collect(All())], ctx: Context[Any] | None) -> StopEvent: ...


async def slots(b: B, a: A, ctx: Context[T]) -> Any: ...


async def text(ev: A) -> str: ...


def test_unions_are_flat_and_lose_none() -> None:
    config = config_of(unions)
    assert config.slots == (Slot("whatever", (A, B, C)),)
    assert (config.context_parameter, config.context_state_type) == ("ctx", Model)
    assert config.return_types == (A, B)
    assert config.accepted_events == (A, B, C)


def test_lists_are_told_from_single_events() -> None:
    config = config_of(lists)
    assert config.slots == (Slot("items", (A, B), is_list=True),)
    assert (config.return_types, config.return_list_types) == ((C,), (A, B, C))


def test_collect_says_how_many_are_enough() -> None:
    assert config_of(taken).slots == (Slot("items", (A,), is_list=True, take=3),)
    assert config_of(all_of).slots == (Slot("items", (A,), is_list=True, take=None),)
    assert config_of(all_of).context_state_type is None


def test_several_event_parameters_are_slots_in_order() -> None:
    config = config_of(slots)
    assert config.slots == (Slot("b", (B,)), Slot("a", (A,)))
    assert config.context_state_type is None
    assert config.return_types == ()


def test_a_return_that_is_no_event_is_left_to_the_run() -> None:
    assert config_of(text).return_types == ()


def make_client() -> int:
    return 1


async def with_resource(
    ev: A, client: Annotated[int, Resource(make_client)], name: Annotated[str, "x"] = ""
) -> B: ...


def test_annotated_resources_are_parameters_of_their_own() -> None:
    (resource,) = config_of(with_resource).resources
    assert (resource.name, resource.definition.name, resource.annotation) == ("client", "make_client", int)


def test_postponed_annotations_find_classes_local_to_a_function() -> None:
    class Local(Event):
        pass

    class W:
        class Inner(Event):
            pass

        @step
        async def first(self, ev: Local) -> Inner: ...

        @step(num_workers=1)
        async def second(self, ev: list[Inner]) -> Local | None: ...

    assert W.first._step_config.accepted_events == (Local,)
    assert W.first._step_config.return_types == (W.Inner,)
    assert W.second._step_config.accepted_events == (W.Inner,)


def test_a_name_that_is_missing_is_named() -> None:
    with pytest.raises(WorkflowValidationError, match=r"W\.s.*'Nowhere'.*isn't defined"):

        class W:
            @step
            async def s(self, ev: A) -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821


async def no_event(ev: int) -> A: ...


async def event_or_int(ev: A | int) -> B: ...


async def no_return(ev: A): ...  # type: ignore[no-untyped-def]


async def list_and_more(items: list[A], b: B) -> C: ...


async def two_lists(items: list[A], more: list[B]) -> C: ...


async def union_slot(a: A | C, b: B) -> C: ...


async def collect_without_list(a: Annotated[A, Collect()]) -> C: ...


async def list_or_event(a: list[A] | B) -> C: ...


async def generator(ev: A) -> AsyncIterator[B]:
    yield B()


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (no_event, "at least one parameter annotated as type Event"),
        (event_or_int, "'ev' is an event or <class 'int'>"),
        (no_return, "return type is not annotated"),
        (list_and_more, "'items' can't be combined"),
        (two_lists, "'items' and 'more'"),
        (union_slot, "'a' has 2"),
        (collect_without_list, "'a' is marked Collect"),
        (list_or_event, "'a' mixes a list"),
        (generator, "async generators"),
    ],
)
def test_a_wrong_signature_is_refused_by_name(func: Any, message: str) -> None:
    with pytest.raises(WorkflowValidationError, match=f"{func.__name__}.*{message}"):
        make_step_function(func)
    with pytest.raises(WorkflowValidationError, match=message):
        validate_step_signature(inspect_signature(func))


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.0])
def test_num_workers_is_a_whole_number_above_zero(count: Any) -> None:
    with pytest.raises(WorkflowValidationError, match="num_workers"):
        make_step_function(text, num_workers=count)


def test_an_unknown_graph_check_is_refused() -> None:
    with pytest.raises(WorkflowValidationError, match="not nothing"):
        make_step_function(text, skip_graph_checks=["nothing"])


@pytest.mark.parametrize("number", [0, -1, True])
def test_take_needs_a_number_above_zero(number: Any) -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        Take(number)


def test_a_free_function_is_given_to_its_workflow() -> None:
    added: list[Any] = []

    class W:
        add_step = added.append

    @step(workflow=W)
    async def free(ev: A) -> B: ...

    assert added == [free]
    with pytest.raises(WorkflowValidationError, match="not a method"):
        step(free)


@pytest.mark.parametrize(
    ("qualname", "free"), [("f", True), ("t.<locals>.f", True), ("W.f", False), ("t.<locals>.W.f", False)]
)
def test_free_functions_are_told_by_their_qualified_name(qualname: str, free: bool) -> None:
    assert is_free_function(qualname) is free


def test_catch_error_makes_a_handler() -> None:
    class W:
        @catch_error
        async def any_step(self, ev: StepFailedEvent) -> StopEvent: ...

        @catch_error(for_steps=["a", "b"], max_recoveries=3)
        async def some(self, ctx: Context[Any], ev: StepFailedEvent) -> None: ...

    wildcard, scoped = W.any_step._step_config, W.some._step_config
    assert (wildcard.role, wildcard.for_steps, wildcard.max_recoveries) == ("catch_error", None, 1)
    assert (scoped.for_steps, scoped.max_recoveries, scoped.num_workers) == (("a", "b"), 3, 1)
    assert scoped.retry_policy is None


async def handles_a(ev: A) -> B: ...


async def handles_more(ev: StepFailedEvent | A) -> B: ...


async def handles_lists(ev: list[StepFailedEvent]) -> B: ...


@pytest.mark.parametrize("func", [handles_a, handles_more, handles_lists])
def test_a_handler_takes_a_step_failure_and_nothing_else(func: Any) -> None:
    with pytest.raises(WorkflowValidationError, match="must accept StepFailedEvent"):
        catch_error(func)


@pytest.mark.parametrize(
    "arguments", [{"for_steps": "a"}, {"for_steps": ("a",)}, {"for_steps": [1]}, {"max_recoveries": 0}]
)
def test_wrong_arguments_of_catch_error_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(WorkflowValidationError, match=next(iter(arguments))):
        catch_error(**arguments)


def test_steps_are_found_by_inheritance_and_bound_to_the_instance() -> None:
    class Base:
        looked_at = False
        _step_functions: ClassVar[dict[str, Any]] = {}

        @property
        def costly(self) -> int:
            type(self).looked_at = True
            return 1

        @step
        async def first(self, ev: StartEvent) -> A: ...

        @step
        async def second(self, ev: A) -> StopEvent: ...

        def helper(self) -> None: ...

    class Derived(Base):
        _step_functions: ClassVar[dict[str, Any]] = {"free": text}

        @step
        async def second(self, ev: A | B) -> StopEvent: ...

    assert set(get_steps_from_class(Base)) == {"first", "second"}
    steps = get_steps_from_class(Derived)
    assert set(steps) == {"first", "second", "free"}
    assert steps["second"]._step_config.accepted_events == (A, B)  # type: ignore[attr-defined]
    instance = Derived()
    assert get_steps_from_instance(instance)["second"].__self__ is instance  # type: ignore[attr-defined]
    assert not Derived.looked_at


def test_a_wrapped_step_is_async_when_it_or_what_it_wraps_is() -> None:
    def plain(ev: A) -> str: ...  # type: ignore[empty-body]

    @wraps(text)
    def sync_outside(*args: Any) -> Any: ...

    @wraps(plain)
    async def async_outside(*args: Any) -> Any: ...

    assert config_of(sync_outside).is_async
    assert config_of(async_outside).is_async
    assert not config_of(plain).is_async
