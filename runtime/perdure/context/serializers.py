"""Values as text and back: JSON that keeps the types of models and events, and pickle for the rest."""

from __future__ import annotations

import base64
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy as shallow_copy
from functools import lru_cache
from typing import Any, Self, cast

from pydantic import BaseModel
from pydantic_core import CoreSchema, SchemaSerializer

from perdure.errors import IncompatibleError
from perdure.events import DictLikeModel
from perdure.naming import active_resolver, import_by_name, qualified_name

_MODEL = "__is_pydantic"
_COMPONENT = "__is_component"
_MARKERS = (_MODEL, _COMPONENT)
_DYNAMIC_DUMP = DictLikeModel.custom_model_dump
_PLAIN = frozenset({str, int, float, bool, type(None)})
# The first bytes of every pickle of protocol 2 and newer, in base64; no JSON text begins so.
_PICKLE_HEAD = "gA"


class BaseSerializer(ABC):
    """Turns values into text and back."""

    @abstractmethod
    def serialize(self, value: Any) -> str:
        """The text of `value`. Raises ValueError when it can't be written."""

    @abstractmethod
    def deserialize(self, value: str) -> Any:
        """The value of a text. Raises ValueError, or IncompatibleError when a type in it is gone."""

    @contextmanager
    def validation_context(self) -> Iterator[None]:
        """While it lasts, fields that hold class names are resolved as this serializer does."""
        yield


class JsonSerializer(BaseSerializer):
    """JSON, with the type kept of pydantic models, events, and components.

    A component has `class_name()`, `to_dict()` and `from_dict(data)`. Tuples come back as lists and
    the keys of dicts as str; what JSON has no form for is refused. Integers of any size are exact, and
    NaN and infinities are kept as Python's json does.

    allowed_types: the only classes (or their qualified names), beside Perdure's own, that texts may name.
    """

    def __init__(self, *, allowed_types: Iterable[type[Any] | str] | None = None) -> None:
        self._closed = allowed_types is not None
        self._classes: dict[str, type[Any] | None] = {}
        for entry in allowed_types or ():
            self._allow(entry)

    def with_types(self, *classes: type[Any] | str | Iterable[type[Any] | str]) -> Self:
        """A serializer that knows `classes` (or lists of them) too: local ones are found only so."""
        copy = shallow_copy(self)
        copy._classes = dict(self._classes)
        for given in classes:
            for entry in (given,) if isinstance(given, type | str) else given:
                copy._allow(entry)
        return copy

    def serialize(self, value: Any) -> str:
        if type(value) in (int, bool, type(None)):
            return json.dumps(value)
        if BaseModel in type(value).__mro__:  # as isinstance, which pydantic has in Python
            short = _model_text(value)
            if short is not None:
                return short
        encoding = _Encoding()
        encoder = json.JSONEncoder(default=encoding.wrap, ensure_ascii=False, separators=(",", ":"))
        try:
            text = encoder.encode(value)
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError:
            # A lone surrogate has no UTF-8; escaped it is kept.
            return self._checked(json.dumps(json.loads(text), separators=(",", ":")), encoding)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"Failed to serialize value: {type(value)}: {_shown(value)}: {error}") from error
        return self._checked(text, encoding)

    def deserialize(self, value: str) -> Any:
        if '"__is_' not in value:
            return json.loads(value)
        with self.validation_context():
            return json.loads(value, object_hook=self._unwrap)

    def serialize_value(self, value: Any) -> Any:
        """`value` as plain JSON types, with models and components wrapped. Raises ValueError."""
        return _Encoding().serialize_value(value)

    def deserialize_value(self, data: Any) -> Any:
        """The way back from serialize_value."""
        with self.validation_context():
            return self._revive(data)

    def resolve_class(self, name: str) -> type[Any]:
        """The class that a text names: a model, an event, a component or an exception, and nothing else.

        Raises IncompatibleError when it is gone, and ValueError when it isn't allowed.
        """
        known = self._classes.get(name)
        if known is not None:
            return known
        own = name.startswith("perdure.events.") or name.startswith("perdure.context.state_store.")
        if self._closed and not own and name not in self._classes and not name.startswith("builtins."):
            raise ValueError(
                f"{name} is not in the serializer's allowed types; allow it with"
                f" JsonSerializer(allowed_types=[...]) or with_types({name.rsplit('.', 1)[-1]})"
            )
        cls = import_by_name(name)
        # Stored text must not be able to call whatever can be imported.
        if not isinstance(cls, type) or not (
            issubclass(cls, BaseModel | BaseException) or _is_component_class(cls)
        ):
            raise ValueError(f"{name} is neither a pydantic model nor a component: it can't be restored")
        self._classes[name] = cls
        return cls

    @contextmanager
    def validation_context(self) -> Iterator[None]:
        token = active_resolver.set(self.resolve_class)
        try:
            yield
        finally:
            active_resolver.reset(token)

    def _allow(self, entry: type[Any] | str) -> None:
        if isinstance(entry, type):
            self._classes[qualified_name(entry)] = entry
            # The origin's texts have the bare name where the class is nested or local.
            self._classes.setdefault(f"{entry.__module__}.{entry.__name__}", entry)
        elif isinstance(entry, str):
            self._classes.setdefault(entry, None)
        else:
            raise TypeError(f"allowed types are classes or their qualified names, not {entry!r}")

    @staticmethod
    def _checked(text: str, encoding: _Encoding) -> str:
        # A dict of the user's that has our marker would come back as an instance of what it names.
        if '"__is_' in text and sum(text.count(f'"{marker}":') for marker in _MARKERS) != encoding.wrapped:
            raise ValueError(
                f"Failed to serialize value: a dict in it has the key {_MODEL!r} or {_COMPONENT!r}, which"
                " mark the types of values; rename the key"
            )
        return text

    def _unwrap(self, data: dict[str, Any]) -> Any:
        if data.get(_MODEL) is True:
            model = self.resolve_class(data["qualified_name"])
            if not issubclass(model, BaseModel):
                raise ValueError(f"{data['qualified_name']} is not a pydantic model any more")
            return model.model_validate(data["value"])
        if data.get(_COMPONENT) is True:
            component: Any = self.resolve_class(data["qualified_name"])
            return component.from_dict(data["value"])
        return data

    def _revive(self, data: Any) -> Any:
        if isinstance(data, dict):
            return self._unwrap({key: self._revive(item) for key, item in data.items()})
        if isinstance(data, list):
            return [self._revive(item) for item in data]
        return data


class PickleSerializer(JsonSerializer):
    """JSON where that can hold the value, else pickle. Read only what you wrote: pickle runs code."""

    def serialize(self, value: Any) -> str:
        try:
            return super().serialize(value)
        except ValueError:
            try:
                return base64.b64encode(pickle.dumps(value)).decode("ascii")
            except Exception as error:
                raise ValueError(
                    f"Failed to serialize value: {type(value)}: {_shown(value)}: neither JSON nor pickle"
                    f" can hold it: {error}"
                ) from error

    def deserialize(self, value: str) -> Any:
        if not value.startswith(_PICKLE_HEAD):
            return super().deserialize(value)
        try:
            return pickle.loads(base64.b64decode(value, validate=True))
        except (ModuleNotFoundError, AttributeError) as error:
            raise IncompatibleError(f"a pickled value names code that is gone: {error}") from error


JsonPickleSerializer = PickleSerializer


class _Encoding:
    """One pass over a value. wrapped: how many models and components it has met."""

    __slots__ = ("wrapped",)

    def __init__(self) -> None:
        self.wrapped = 0

    def wrap(self, value: Any) -> dict[str, Any]:
        """A model or component as a marked dict. Raises TypeError for anything else."""
        if isinstance(value, BaseModel):
            marker, data = _MODEL, value.model_dump(mode="json", context=self)
        elif _is_component(value):
            marker, data = _COMPONENT, value.to_dict()
        else:
            raise TypeError(f"{type(value).__name__} has no form in JSON")
        self.wrapped += 1
        return {marker: True, "value": data, "qualified_name": qualified_name(type(value))}

    def serialize_value(self, value: Any) -> Any:
        """`value` as plain JSON types. Events give themselves to it for their dynamic data."""
        if type(value) in _PLAIN:
            return value
        if isinstance(value, dict):
            if not value.keys().isdisjoint(_MARKERS):
                raise ValueError(f"a dict has a key of {_MARKERS}, which mark the types of values; rename it")
            return {key: self.serialize_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.serialize_value(item) for item in value]
        if isinstance(value, str | int | float):
            return value
        try:
            return self.wrap(value)
        except TypeError as error:
            raise ValueError(f"Failed to serialize value: {type(value)}: {_shown(value)}") from error


def _model_text(model: BaseModel) -> str | None:
    """What `JsonSerializer` makes of a model, by one call of pydantic's; None where it might be something else.

    Every event of a durable run comes this way: it takes half the time.
    """
    cls, private = type(model), model.__pydantic_private__
    serializer = None if private and private.get("_data") else _fields_serializer(cls)
    try:
        data = (serializer or cls.__pydantic_serializer__).to_json(model, context=_Encoding()).decode()
    except ValueError:
        return None  # a lone surrogate, or what the long way explains better
    # It writes NaN as null, where a model says nothing else; and markers inside have to be counted.
    if "null" in data or '"__is_' in data:
        return None
    return f'{{"{_MODEL}":true,"value":{data},"qualified_name":{_quoted_name(cls)}}}'


@lru_cache(maxsize=1024)
def _fields_serializer(cls: type[BaseModel]) -> SchemaSerializer | None:
    """The serializer of an event that has no dynamic data: for that alone pydantic would call Python each time.

    None where a class has more to say of how it is written.
    """
    schema = cls.__pydantic_core_schema__
    if schema["type"] != "model" or schema.get("serialization", {}).get("function") is not _DYNAMIC_DUMP:
        return None
    fields_only = {name: part for name, part in schema.items() if name != "serialization"}
    return SchemaSerializer(cast("CoreSchema", fields_only))


@lru_cache(maxsize=1024)
def _quoted_name(cls: type[Any]) -> str:
    return json.dumps(qualified_name(cls), ensure_ascii=False)


def _is_component(value: Any) -> bool:
    return not isinstance(value, type) and _is_component_class(type(value))


def _is_component_class(cls: type[Any]) -> bool:
    return all(callable(getattr(cls, name, None)) for name in ("class_name", "to_dict", "from_dict"))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
