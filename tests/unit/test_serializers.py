"""Serializers: what comes back is what went in, or the text is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, PrivateAttr, model_serializer

from perdure.context.serializers import BaseSerializer, JsonPickleSerializer, JsonSerializer, PickleSerializer
from perdure.errors import IncompatibleError
from perdure.events import Event, SerializableEvent, StopEvent, WorkflowFailedEvent


class Point(BaseModel):
    x: int = 0
    tags: set[str] = set()


class Found(Event):
    size: float = 0.0
    point: Point = Point()
    extra: dict[str, Any] = Field(default_factory=dict)


class Carrier(Event):
    inner: SerializableEvent


class Component:
    def __init__(self, value: int) -> None:
        self.value = value

    @classmethod
    def class_name(cls) -> str:
        return "Component"

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Component:
        return cls(data["value"])


class Broken(Exception):
    pass


def again(value: Any) -> Any:
    serializer = JsonSerializer()
    return serializer.deserialize(serializer.serialize(value))


# Those that mark a value's type are refused, which has a test of its own; hypothesis finds them in the source.
KEYS = st.text().filter(lambda key: key not in ("__is_pydantic", "__is_component"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_values_come_back_exactly(value: Any) -> None:
    assert again(value) == value


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_dynamic_data_of_events_comes_back_exactly(data: dict[str, Any]) -> None:
    event = Found()
    event._data.update(data)
    assert again(event) == event


@pytest.mark.parametrize("value", [2**53 + 1, 2**200, -(2**63) - 1, "\ud800é", "日本", True, None, 1e-320])
def test_scalars_are_exact(value: Any) -> None:
    assert again(value) == value
    assert type(again(value)) is type(value)


def test_nan_and_infinity_are_kept_in_events_too() -> None:
    assert math.isnan(again(math.nan))
    event = again(Found(size=math.nan, ratio=math.inf))
    assert math.isnan(event.size)
    assert event.ratio == math.inf


class Nested(BaseModel):
    value: Any = None


class Holding(Event):
    value: Any = None


@pytest.mark.parametrize(
    "value",
    [
        1, 10**30, 0.1, 1e16, -0.0, True, None, "é\u2028\x00\"\\/", [], {}, {1: 2}, {None: 1, "1": {2.5: [3]}},
        Nested(value=[Nested()]), Nested(value=1e300), math.inf, {"a": -math.inf}, "\ud800", datetime(2026, 1, 2, tzinfo=UTC),
        Decimal("1.50"), {"nullable": "null"}, Event(a=1), Event(a=Nested(value=2)), [Event(a=[Event(b=None)])],
    ],
    ids=repr,
)  # fmt: skip
def test_a_model_alone_has_the_text_that_it_has_inside_of_something(value: Any) -> None:
    def text(given: Any) -> str | None:
        try:
            return JsonSerializer().serialize(given)
        except ValueError:
            return None  # as dynamic data, what JSON has no form for is refused

    for model in (Nested(value=value), Holding(value=value), Holding(value=1, more=value)):
        alone, inside = text(model), text([model])
        assert inside == (None if alone is None else f"[{alone}]")
    assert text(Nested(value=value)) is not None


class TellsMore(Event):
    value: int

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: Any, info: Any) -> dict[str, Any]:
        return {**handler(self), "double": 2 * self.value}


class TellsWithSecrets(Holding):
    _secret: int = PrivateAttr(default=5)


def test_an_event_that_has_its_own_way_of_being_written_is_written_so() -> None:
    assert '"value":{"value":4,"double":8}' in JsonSerializer().serialize(TellsMore(value=4))
    assert '"value":{"value":4}' in JsonSerializer().serialize(TellsWithSecrets(value=4))
    assert '"value":{"value":4,"_data":{"more":1}}' in JsonSerializer().serialize(
        TellsWithSecrets(value=4, more=1)
    )


def test_tuples_become_lists_and_text_is_not_escaped() -> None:
    assert again((1, (2, 3))) == [1, [2, 3]]
    assert JsonSerializer().serialize("日本") == '"日本"'


def test_models_keep_their_type_wherever_they_stand() -> None:
    value = {"a": [Point(x=1, tags={"t"})], "b": Found(point=Point(x=2), near=[Point(x=3)])}
    assert again(value) == value
    back = again(value)
    assert type(back["b"].near[0]) is Point
    assert again(Carrier(inner=Found(q=Point(x=4)))).inner.q == Point(x=4)


def test_a_stop_event_keeps_result_and_dynamic_data() -> None:
    back = again(StopEvent(result=Point(x=2), note=(1, 2)))
    assert (back.result, back.note) == (Point(x=2), [1, 2])


def test_components_come_back_by_their_own_methods() -> None:
    assert again([Component(5)])[0].value == 5


def test_the_text_names_type_and_value_as_the_origin_does() -> None:
    assert JsonSerializer().serialize_value({"p": Point(x=1), "t": (1,)}) == {
        "p": {
            "__is_pydantic": True,
            "value": {"x": 1, "tags": []},
            "qualified_name": f"{__name__}.Point",
        },
        "t": [1],
    }
    value = {"p": Point(x=1), "q": [Found(z=1)]}
    assert JsonSerializer().deserialize_value(JsonSerializer().serialize_value(value)) == value


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), Point, {"a": [object()]}, {(1, 2): 3}, lambda: 1])
def test_what_json_has_no_form_for_is_refused_with_its_type(value: Any) -> None:
    with pytest.raises(ValueError, match="Failed to serialize value: <class"):
        JsonSerializer().serialize(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Failed to serialize"):
        JsonSerializer().serialize(loop)


@pytest.mark.parametrize("marker", ["__is_pydantic", "__is_component"])
def test_a_dict_cannot_pass_for_a_typed_value(marker: str) -> None:
    """What came from outside must not come back as an instance of a class that it names."""
    forged = {marker: True, "value": {}, "qualified_name": f"{__name__}.Point"}
    for value in (forged, [forged], Found(extra=forged), Found(dynamic=forged), {"a": Found(), "b": forged}):
        with pytest.raises(ValueError, match=marker):
            JsonSerializer().serialize(value)
    assert again(f'"{marker}":') == f'"{marker}":'


def wrapped(name: str) -> str:
    return f'{{"__is_pydantic": true, "value": {{}}, "qualified_name": "{name}"}}'


@pytest.mark.parametrize("name", ["subprocess.Popen", "os.system", "builtins.eval", "builtins.dict"])
def test_only_models_components_and_exceptions_are_ever_resolved(name: str) -> None:
    with pytest.raises(ValueError, match="neither a pydantic model nor a component"):
        JsonSerializer().deserialize(wrapped(name))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nowhere.at.all.Gone", "no module 'nowhere.at.all'"),
        (f"{__name__}.Gone", "has no 'Gone' any more"),
        (f"{__name__}.f.<locals>.Gone", "local to a function"),
    ],
)
def test_a_class_that_is_gone_is_named(name: str, what: str) -> None:
    with pytest.raises(IncompatibleError, match=what):
        JsonSerializer().deserialize(wrapped(name))


def test_local_classes_are_known_by_with_types() -> None:
    class Local(Event):
        n: int = 0

    plain = JsonSerializer()
    knowing = plain.with_types(Local)
    text = plain.serialize(Local(n=3))
    assert knowing.deserialize(text) == Local(n=3)
    assert plain.with_types([Local]).deserialize(text) == Local(n=3)
    with pytest.raises(IncompatibleError):
        plain.deserialize(text)


def test_allowed_types_shut_all_others_out() -> None:
    shut = JsonSerializer(allowed_types=[Found])
    text = JsonSerializer().serialize(Point())
    with pytest.raises(ValueError, match="not in the serializer's allowed types"):
        shut.deserialize(text)
    assert shut.with_types(Point).deserialize(text) == Point()
    assert JsonSerializer(allowed_types=[f"{__name__}.Point"]).deserialize(text) == Point()
    assert shut.resolve_class("perdure.events.StopEvent") is StopEvent
    with pytest.raises(TypeError):
        JsonSerializer(allowed_types=[3])  # type: ignore[list-item]


def test_an_exception_in_an_event_is_resolved_by_the_same_rules() -> None:
    failed = WorkflowFailedEvent(step_name="s", exception=Broken("b"))
    text = JsonSerializer().serialize(failed)
    assert type(JsonSerializer().deserialize(text).exception) is Broken
    shut = JsonSerializer(allowed_types=[])
    assert type(shut.deserialize(text).exception).__name__ == "UnreconstructedException"


def test_damaged_text_is_a_value_error() -> None:
    for text in ("", "[", '{"__is_pydantic": true'):
        with pytest.raises(ValueError, match=r"."):
            JsonSerializer().deserialize(text)


def test_pickle_holds_what_json_cannot() -> None:
    pickled = PickleSerializer()
    assert JsonPickleSerializer is PickleSerializer
    assert isinstance(pickled, BaseSerializer)
    assert pickled.serialize({"a": 1}) == '{"a":1}'
    for value in ({1, 2}, b"\x00\xff", {"a": {(1, 2)}}, Point(x=2), "gASVtext"):
        assert pickled.deserialize(pickled.serialize(value)) == value
    with pytest.raises(ValueError, match="neither JSON nor pickle"):
        pickled.serialize(lambda: 1)


def test_a_pickle_that_names_what_is_gone_says_so() -> None:
    import base64

    text = base64.b64encode(b"\x80\x04cnowhere\nGone\n.").decode()
    with pytest.raises(IncompatibleError, match="nowhere"):
        PickleSerializer().deserialize(text)
