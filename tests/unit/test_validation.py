"""The graph of steps and events: what is refused before a run, by name, and which streams are joined where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from perdure.collect import Collect, Take
from perdure.decorators import StepConfig, catch_error, step
from perdure.errors import WorkflowConfigurationError, WorkflowValidationError
from perdure.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from perdure.resource import Resource, ResourceConfig
from perdure.utils import get_steps_from_class
from perdure.validation import (
    list_collectors,
    start_event_class,
    stop_event_class,
    validate,
    validate_resource_configs,
)
from perdure.workflow import Workflow


class Begin(StartEvent):
    pass


class Done(StopEvent):
    pass


class A(Event):
    pass


class SubA(A):
    pass


class B(Event):
    pass


class C(Event):
    pass


class Ask(InputRequiredEvent):
    pass


class Reply(HumanResponseEvent):
    pass


def steps(cls: type[Any]) -> dict[str, StepConfig]:
    return {name: f._step_config for name, f in get_steps_from_class(cls).items()}  # type: ignore[attr-defined]


def refused(cls: type[Any], *parts: str, skip: tuple[str, ...] = ()) -> None:
    with pytest.raises(WorkflowValidationError) as caught:
        validate(steps(cls), skip=skip)
    for part in parts:
        assert part in str(caught.value)


class Plain:
    @step
    async def first(self, ev: Begin) -> A: ...

    @step
    async def last(self, ev: A) -> Done: ...


def test_a_plain_workflow_is_right_and_has_its_start_and_stop() -> None:
    assert validate(steps(Plain)) is False
    assert start_event_class(steps(Plain)) is Begin
    assert stop_event_class(steps(Plain)) is Done


def test_a_workflow_needs_steps() -> None:
    for check in (start_event_class, stop_event_class, validate):
        with pytest.raises(WorkflowConfigurationError, match="no configured steps"):
            check({})


def test_a_workflow_needs_one_start_and_one_stop_class() -> None:
    class NoStart:
        @step
        async def s(self, ev: A) -> StopEvent: ...

    class NoStop:
        @step
        async def s(self, ev: StartEvent) -> A: ...

    class Two:
        @step
        async def s(self, ev: StartEvent | Begin) -> StopEvent | list[Done]: ...

    with pytest.raises(WorkflowConfigurationError, match="StartEvent must be received"):
        start_event_class(steps(NoStart))
    with pytest.raises(WorkflowConfigurationError, match="StopEvent must be returned"):
        stop_event_class(steps(NoStop))
    with pytest.raises(WorkflowConfigurationError, match="found 2: Begin, StartEvent"):
        start_event_class(steps(Two))
    with pytest.raises(WorkflowConfigurationError, match="found 2: Done, StopEvent"):
        stop_event_class(steps(Two))


def test_a_person_in_the_loop_is_seen() -> None:
    class Asks:
        @step
        async def ask(self, ev: StartEvent) -> Ask: ...

        @step
        async def answered(self, ev: Reply) -> StopEvent: ...

    class Answered:
        @step
        async def s(self, ev: StartEvent | Reply) -> StopEvent: ...

    assert validate(steps(Asks)) is True
    assert validate(steps(Answered)) is True


def test_an_event_nobody_makes_is_named_with_the_step_that_wants_it() -> None:
    class W(Plain):
        @step
        async def third(self, ev: B) -> Done: ...

    refused(W, "consumed but never produced", "B", "third")


def test_an_event_nobody_takes_is_named_with_the_step_that_makes_it() -> None:
    class W(Plain):
        @step
        async def last(self, ev: A) -> Done | B: ...

    refused(W, "produced but never consumed", "B", "last")


def test_types_match_exactly_unless_subclasses_are_asked_for() -> None:
    class Exact:
        @step
        async def first(self, ev: Begin) -> SubA: ...

        @step
        async def last(self, ev: A) -> Done: ...

    class Open(Exact):
        @step(accept_event_subclasses=True)
        async def last(self, ev: A) -> Done: ...

    refused(Exact, "never produced", "last")
    assert validate(steps(Open)) is False


def test_a_step_must_not_take_the_stop_event() -> None:
    class W(Plain):
        @step
        async def after(self, ev: Done) -> None: ...

    refused(W, "after", "accepts Done")


def test_a_list_parameter_needs_a_list_producer() -> None:
    class W(Plain):
        @step
        async def last(self, ev: list[A]) -> Done: ...

    refused(W, "last", "'ev'", "ctx.collect_events", "list[A]")


def test_events_of_different_streams_never_meet() -> None:
    class W:
        @step
        async def first(self, ev: Begin) -> list[A]: ...

        @step
        async def other(self, ev: Begin) -> B: ...

        @step
        async def join(self, a: A, b: B) -> Done: ...

    class Same(W):
        @step
        async def other(self, ev: A) -> B: ...

    refused(W, "join", "A, B", "never meet")
    assert validate(steps(Same)) is False


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nothing"], "'nothing', which isn't there"),
        (["other"], "a handler itself"),
        (["first"], "two @catch_error"),
    ],
)
def test_a_handler_must_name_steps_that_it_can_cover(names: list[str], message: str) -> None:
    class W(Plain):
        @catch_error(for_steps=["first"])
        async def other(self, ev: StepFailedEvent) -> Done: ...

        @catch_error(for_steps=names)
        async def wrong(self, ev: StepFailedEvent) -> Done: ...

    refused(W, message, "wrong")


def test_only_one_handler_covers_everything() -> None:
    class One(Plain):
        @catch_error
        async def one(self, ev: StepFailedEvent) -> A | None: ...

    class Two(One):
        @catch_error
        async def two(self, ev: StepFailedEvent) -> None: ...

    assert validate(steps(One)) is False
    refused(Two, "one, two")


def test_a_step_out_of_reach_is_named() -> None:
    class W(Plain):
        @step
        async def island(self, ev: B) -> C: ...

        @step
        async def back(self, ev: C) -> B | Done: ...

    class Sent(W):
        @step(skip_graph_checks=["reachability"])
        async def island(self, ev: B) -> C: ...

        @step(skip_graph_checks=["reachability"])
        async def back(self, ev: C) -> B | Done: ...

    refused(W, "can't be reached from Begin")
    assert validate(steps(W), skip={"reachability"}) is False
    assert validate(steps(Sent)) is False


def test_a_way_without_end_is_named() -> None:
    class W(Plain):
        @step
        async def round(self, ev: A) -> B: ...

        @step
        async def and_round(self, ev: B) -> B: ...

    class Meant(W):
        @step(skip_graph_checks=["dead_end"])
        async def round(self, ev: A) -> B: ...

        @step(skip_graph_checks=["dead_end"])
        async def and_round(self, ev: B) -> B: ...

    refused(W, "dead end", "B")
    assert validate(steps(W), skip={"dead_end"}) is False
    assert validate(steps(Meant)) is False


class Documents:
    @step
    async def find(self, ev: Begin) -> list[A]: ...

    @step(num_workers=4)
    async def convert(self, ev: A) -> B | None: ...

    @step
    async def join(self, evs: list[B]) -> Done: ...


def test_a_stream_is_joined_where_its_elements_come_to() -> None:
    assert validate(steps(Documents)) is False
    assert list_collectors(steps(Documents)) == {"find": ("join",)}


def test_several_steps_may_join_one_stream() -> None:
    class W(Documents):
        @step
        async def sample(self, evs: Annotated[list[A], Collect(Take(2))]) -> None: ...

    assert list_collectors(steps(W)) == {"find": ("join", "sample")}


def test_an_inner_stream_comes_back_to_the_outer_with_what_its_join_returns() -> None:
    class W:
        @step
        async def folders(self, ev: Begin) -> list[A]: ...

        @step
        async def files(self, ev: A) -> list[B]: ...

        @step
        async def folder_done(self, evs: list[B]) -> C: ...

        @step
        async def all_done(self, evs: list[C]) -> Done: ...

    assert list_collectors(steps(W)) == {"folders": ("all_done",), "files": ("folder_done",)}
    assert validate(steps(W)) is False


def test_a_join_that_opens_a_stream_again_opens_it_one_level_out() -> None:
    class W:
        @step
        async def begin(self, ev: Begin) -> list[A]: ...

        @step
        async def again(self, evs: list[A]) -> list[B]: ...

        @step
        async def end(self, evs: list[B]) -> Done: ...

    assert list_collectors(steps(W)) == {"begin": ("again",), "again": ("end",)}


def test_a_stream_that_nobody_joins_has_no_collectors() -> None:
    class W:
        @step
        async def begin(self, ev: Begin) -> list[A] | Done: ...

        @step
        async def each(self, ev: A) -> None: ...

    assert list_collectors(steps(W)) == {"begin": ()}
    assert list_collectors(steps(Plain)) == {}
    assert validate(steps(W)) is False


def test_a_step_that_opens_streams_within_its_own_is_followed_to_an_end() -> None:
    class W:
        @step
        async def walk(self, ev: Begin | A) -> list[A | B] | None: ...

        @step
        async def join(self, evs: list[B]) -> C: ...

        @step
        async def end(self, ev: C) -> Done: ...

    assert list_collectors(steps(W)) == {"walk": ("join",)}
    assert validate(steps(W)) is False


class Limits(BaseModel):
    depth: int


def test_resource_configs_are_read_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text(json.dumps({"depth": 1}))
    gone = str(tmp_path / "gone.json")

    def service(limits: Annotated[Limits, ResourceConfig(gone)]) -> int:
        return limits.depth

    class Good:
        @step
        async def s(self, ev: Begin, limits: Annotated[Limits, ResourceConfig(str(path))]) -> Done: ...

    class Bad:
        @step
        async def s(self, ev: Begin, service: Annotated[int, Resource(service)]) -> Done: ...

    validate_resource_configs(steps(Good))
    with pytest.raises(
        WorkflowValidationError, match=r"Resource config validation failed: step s .*gone\.json"
    ):
        validate_resource_configs(steps(Bad))


class TellsNobody(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> HumanResponseEvent | StopEvent: ...


def test_an_answer_that_no_step_takes_is_a_terminal_event_unless_that_is_skipped() -> None:
    with pytest.raises(
        WorkflowValidationError, match="begin returns HumanResponseEvent, which no step takes"
    ):
        TellsNobody().validate()
    assert TellsNobody(skip_graph_checks={"terminal_event"}).validate() is False


def test_resources_are_made_once_when_validate_is_asked_to() -> None:
    made = []

    def get_value() -> int:
        made.append(1)
        return 1

    class Needs(Workflow):
        @step
        async def only(self, ev: StartEvent, value: Annotated[int, Resource(get_value)]) -> StopEvent:
            return StopEvent()

    workflow = Needs()
    workflow.validate()
    assert not made
    workflow.validate(validate_resources=True)
    workflow.validate(validate_resources=True)
    assert made == [1]


def test_a_resource_that_cannot_be_made_is_named_with_its_step() -> None:
    def get_value() -> int:
        raise RuntimeError("no database")

    class Needs(Workflow):
        @step
        async def only(self, ev: StartEvent, value: Annotated[int, Resource(get_value)]) -> StopEvent:
            return StopEvent()

    Needs().validate()
    with pytest.raises(WorkflowValidationError, match="step 'only', parameter 'value': no database"):
        Needs().validate(validate_resources=True)
