"""Events: fields, dynamic data, results, and what of an exception comes back."""

from __future__ import annotations

import copy
import pickle
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from perdure.context.serializers import JsonSerializer
from perdure.events import (
    Event,
    SerializableEvent,
    SerializableEventType,
    SerializableOptionalEvent,
    StartEvent,
    StepFailedEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    UnreconstructedException,
    WorkflowFailedEvent,
    load_exception,
)


class Document(Event):
    path: str = ""
    size: int = 3
    _note: str = PrivateAttr(default="none")


class Aliased(Event):
    kind: str = Field(alias="type", default="?")


class Answer(StopEvent):
    words: int = 0


class TwoArguments(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first, second)


class Carrier(Event):
    inner: SerializableEvent
    other: SerializableOptionalEvent = None
    kind: SerializableEventType = Event


def test_declared_fields_are_attributes_and_not_items() -> None:
    event = Document(path="a", size="4")
    assert (event.path, event.size) == ("a", 4)
    assert event.get("path") is None
    assert "path" not in event
    with pytest.raises(KeyError):
        event["path"]


def test_unknown_keywords_are_attributes_and_items() -> None:
    event = Document(colour="red")
    assert event.colour == event["colour"] == event.get("colour") == "red"
    assert list(event) == list(event.keys()) == ["colour"]
    assert list(event.items()) == [("colour", "red")]
    assert list(event.values()) == ["red"]
    assert len(event) == 1
    assert event.to_dict() == {"colour": "red"}


def test_an_unknown_attribute_set_becomes_dynamic_data() -> None:
    event = Document()
    event.pages = 7
    event["words"] = 9
    assert event.to_dict() == {"pages": 7, "words": 9}
    event.size = 12
    assert event.size == 12
    del event.pages
    assert "pages" not in event


def test_an_event_without_data_is_true_and_a_missing_attribute_is_named() -> None:
    assert Document()
    with pytest.raises(AttributeError, match="'Document' object has no attribute 'colour'"):
        Document().colour  # noqa: B018


def test_private_attributes_may_be_given_by_keyword() -> None:
    assert Document(_note="x")._note == "x"
    given = {"a": 1}
    event = Document(_data=given)
    event["a"] = 2
    assert given == {"a": 1}


def test_an_alias_is_a_field_not_dynamic_data() -> None:
    event = Aliased(type="pdf")
    assert event.kind == "pdf"
    assert event.to_dict() == {}


def test_a_wrong_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        Document(size="many")


def test_dump_has_dynamic_data_apart_and_reads_back() -> None:
    event = Document(path="a", colour="red")
    assert event.model_dump() == {"path": "a", "size": 3, "_data": {"colour": "red"}}
    assert Document().model_dump() == {"path": "", "size": 3}
    assert Document(**event.model_dump()) == event == Document.model_validate(event.model_dump())
    assert event != Document(path="a")


def test_a_copy_has_dynamic_data_of_its_own() -> None:
    event = Document(colour="red")
    for other in (event.model_copy(), copy.copy(event), event.model_copy(deep=True)):
        other["colour"] = "blue"
    assert event["colour"] == "red"
    assert pickle.loads(pickle.dumps(event)) == event


def test_a_stop_event_has_its_result_and_its_dump_leaves_dynamic_data_out() -> None:
    stop = StopEvent(result=3, extra=4)
    assert (stop.result, stop.extra, StopEvent(5).result) == (3, 4, 5)
    assert stop.model_dump() == {"result": 3}
    assert StopEvent(extra=1).model_dump() == {}
    assert repr(stop) == "StopEvent(extra=4, result=3)"
    assert str(stop) == "3"
    assert StopEvent(result=1) != StopEvent(result=2)
    assert StopEvent.model_validate({"result": 8}).result == 8


def test_a_stop_event_subclass_may_say_its_result() -> None:
    class Counted(StopEvent):
        words: int

        def _get_result(self) -> int:
            return self.words

    assert Counted(words=2).result == 2
    assert repr(Answer(words=1)) == "Answer(words=1)"


def test_failures_dump_the_type_and_message_of_their_exception() -> None:
    failed = WorkflowFailedEvent(step_name="s", exception=ValueError("no"), attempts=2)
    dumped = failed.model_dump()
    assert dumped["exception"] == {"exception_type": "builtins.ValueError", "exception_message": "no"}
    back = WorkflowFailedEvent.model_validate(dumped)
    assert type(back.exception) is ValueError
    assert str(back.exception) == "no"
    assert back.elapsed_seconds is None


def test_a_step_failure_keeps_its_input_event() -> None:
    failed = StepFailedEvent(
        step_name="s",
        input_event=Document(path="p", colour="red"),
        exception=KeyError("k"),
        attempts=1,
        elapsed_seconds=0.5,
        failed_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    back = StepFailedEvent.model_validate(failed.model_dump())
    assert back.input_event == failed.input_event
    assert back.failed_at == failed.failed_at


@pytest.mark.parametrize(
    "name",
    ["nowhere.Gone", "builtins.eval", f"{__name__}.TwoArguments", "builtins.SystemExit", "builtins.Nope"],
)
def test_an_exception_that_cannot_be_built_again_keeps_message_and_type_name(name: str) -> None:
    back = load_exception({"exception_type": name, "exception_message": "boom"})
    assert isinstance(back, UnreconstructedException)
    assert (str(back), back.original_type) == ("boom", name)


def test_an_unreconstructed_exception_is_not_wrapped_twice() -> None:
    once = load_exception({"exception_type": "nowhere.Gone", "exception_message": "boom"})
    dumped = WorkflowFailedEvent(step_name="s", exception=once).model_dump()["exception"]
    twice = load_exception(dumped)
    assert isinstance(twice, UnreconstructedException)
    assert str(twice) == "boom"


def test_event_fields_keep_the_class_of_what_they_hold() -> None:
    carrier = Carrier(inner=Document(path="p", colour=Answer(words=3)), kind=StartEvent)
    back = JsonSerializer().deserialize(JsonSerializer().serialize(carrier))
    assert back == carrier
    assert type(back.inner.colour) is Answer
    assert back.other is None
    assert back.kind is StartEvent
    with pytest.raises(ValueError, match="Event is needed"):
        Carrier(inner=3)
    with pytest.raises(ValueError, match="isn't one"):
        Carrier(inner=Document(), kind=int)


def test_step_states_are_as_in_the_origin() -> None:
    assert [state.value for state in StepState] == ["preparing", "running", "not_running"]
    changed = StepStateChanged(
        name="s", step_state=StepState.RUNNING, worker_id="0", input_event_name=str(Document)
    )
    assert changed.output_event_name is None
    assert "Document'>" in changed.input_event_name


class Plain(Event):
    path: str = ""


class Counted(Event):
    size: int
    _doubled: int = PrivateAttr(default=0)

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._doubled = 2 * self.size


class CountedAgain(Counted):
    name: str = ""


def test_an_authors_private_attributes_and_post_init_work_in_every_subclass() -> None:
    for event in (Counted(size=2, colour="red"), CountedAgain(size=2, colour="red")):
        assert (event._doubled, event.colour) == (4, "red")
    assert CountedAgain.model_construct(size=3)._doubled == 6


def test_an_event_without_them_is_built_without_a_call_back_into_python() -> None:
    class Deeper(Plain):
        depth: int

    calls: list[Any] = []
    try:
        sys.setprofile(lambda frame, what, _: calls.append(frame.f_code.co_name) if what == "call" else None)
        Deeper(path="p", depth=1)
    finally:
        sys.setprofile(None)
    assert calls == ["__init__"]


def test_dynamic_data_is_there_whatever_way_an_event_was_made() -> None:
    class Past(Plain):
        def __init__(self, **fields: Any) -> None:
            BaseModel.__init__(self, **fields)

    class Holder(BaseModel):
        event: Plain

    made = [
        Past(path="p"),
        Plain.model_construct(path="p"),
        Holder.model_validate({"event": {"path": "p"}}).event,
        Holder.model_validate_json('{"event": {"path": "p"}}').event,
        copy.deepcopy(Plain(path="p")),
        pickle.loads(pickle.dumps(Plain(path="p"))),
    ]
    for event in made:
        event.colour = "red"
        assert event.to_dict() == {"colour": "red"}


def test_events_are_equal_whether_or_not_their_dynamic_data_was_asked_for() -> None:
    asked, other = Plain(path="p"), Plain(path="p")
    assert asked.to_dict() == {}
    assert asked == other
    assert asked != Plain(path="p", colour="red")
    assert asked != Plain(path="q")
