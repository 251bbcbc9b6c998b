"""Events: what steps take and return. Fields are validated; other keywords are kept as dynamic data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, ClassVar, Self, TypeAlias, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import CoreSchema

from perdure.naming import qualified_name, resolve


class _WithData(BaseModel):
    _data: dict[str, Any] = PrivateAttr(default_factory=dict)


_init_private = _WithData.model_post_init  # pydantic's, for private attributes and nothing else
_private = BaseModel.__dict__["__pydantic_private__"].__get__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def _has_only_data(cls: type[BaseModel]) -> bool:
    """Whether `_data` is the one private attribute of `cls`, and no `model_post_init` of an author's is to run."""
    return (
        cls.__private_attributes__.keys() == {"_data"}
        and inspect.unwrap(cls.model_post_init) is _init_private
    )


class DictLikeModel(_WithData):  # noqa: PLW1641  its hash is pydantic's affair: none unless frozen
    """A pydantic model that takes any further keyword and offers those like a dict.

    Declared fields are attributes only. Dynamic data is reached as attribute and by the mapping's
    methods. Private attributes may be given by keyword.
    """

    # NaN and infinities stay what they are: as null a float field would refuse them on the way back.
    model_config = ConfigDict(arbitrary_types_allowed=True, ser_json_inf_nan="constants")

    # Names that pydantic takes as fields, aliases included; computed once per class.
    __known_names__: ClassVar[frozenset[str]] = frozenset()
    # Whether dynamic data, the only private attribute, is made by `__getattr__` instead of pydantic.
    __only_data__: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        names = set(cls.__pydantic_fields__)
        for field in cls.__pydantic_fields__.values():
            names.update(a for a in (field.alias, field.validation_alias) if isinstance(a, str))
        cls.__known_names__ = frozenset(names)
        if "__only_data__" not in cls.__dict__:
            cls.__only_data__ = False

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if schema["type"] == "model" and _has_only_data(cls):
            # For private attributes pydantic calls back into Python, once for each class of the ancestry; that
            # takes twice as long as all the rest of an event. Dynamic data is made when it is first asked for:
            # most events have none, and of thousands that are pending each dict costs the garbage collector.
            cls.__only_data__ = True
            return cast("CoreSchema", {name: part for name, part in schema.items() if name != "post_init"})
        return schema

    def __init__(self, /, **params: Any) -> None:
        known = self.__known_names__
        # The common case, all keywords being fields, must cost no more than pydantic itself.
        if params.keys() <= known:
            self.__pydantic_validator__.validate_python(params, self_instance=self)
            return
        private_names = self.__private_attributes__
        fields: dict[str, Any] = {}
        private: dict[str, Any] = {}
        data: dict[str, Any] = {}
        for name, value in params.items():
            target = fields if name in known else private if name in private_names else data
            target[name] = value
        self.__pydantic_validator__.validate_python(fields, self_instance=self)
        for name, value in private.items():
            # A dict of somebody else's must not be shared: events are changed by their owners.
            if name == "_data":
                self._data.update(value)
            else:
                BaseModel.__setattr__(self, name, value)
        if data:
            self._data.update(data)

    def __getattr__(self, name: str) -> Any:
        cls = type(self)
        if name == "_data" and cls.__only_data__:
            private = _private(self)
            if private is None:
                private = {"_data": {}}
                _set_private(self, private)
            return private["_data"]
        if name in cls.__private_attributes__ or name in cls.__pydantic_fields__ or name.startswith("__"):
            return super().__getattr__(name)  # type: ignore[misc]
        private = object.__getattribute__(self, "__pydantic_private__")
        try:
            return private["_data"][name]
        except (KeyError, TypeError):
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if name in cls.__pydantic_fields__ or name in cls.__private_attributes__ or name.startswith("__"):
            super().__setattr__(name, value)
        else:
            self._data[name] = value

    def __delattr__(self, name: str) -> None:
        if name in self._data:
            del self._data[name]
        else:
            super().__delattr__(name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DictLikeModel):
            _ = self._data, other._data  # no dynamic data equals none, whether it was asked for or not
        return super().__eq__(other)

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._data = dict(self._data)
        return copied

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        del self._data[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The dynamic value of `key`, or `default`."""
        return self._data.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def keys(self) -> Any:
        """The dynamic keys."""
        return self._data.keys()

    def values(self) -> Any:
        """The dynamic values."""
        return self._data.values()

    def items(self) -> Any:
        """The dynamic items."""
        return self._data.items()

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self._data)

    def __bool__(self) -> bool:
        # `if event:` asks whether there is one, not whether it has dynamic data.
        return True

    def to_dict(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        """The dynamic data itself."""
        return self._data

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """The fields, and `_data` when there is dynamic data."""
        dumped: dict[str, Any] = handler(self)
        if self._data:
            dumped["_data"] = encode_dynamic(self._data, info)
        return dumped


def encode_dynamic(value: Any, info: SerializationInfo) -> Any:
    """Dynamic values have no declared type: a serializer that gives itself as context keeps theirs."""
    encode = getattr(info.context, "serialize_value", None)
    return value if encode is None else encode(value)


class Event(DictLikeModel):
    """What steps exchange. Subclass it with typed fields."""


EventType: TypeAlias = type[Event]


class UnreconstructedException(Exception):
    """Stands for an exception that could not be built again from its type's name and message.

    original_type: the qualified name of what it was; kept on this object only.
    """

    def __init__(self, message: str, *, original_type: str | None = None) -> None:
        super().__init__(message)
        self.original_type = original_type

    def __repr__(self) -> str:
        return f"UnreconstructedException({self.args[0]!r}, original_type={self.original_type!r})"


def dump_exception(exception: BaseException) -> dict[str, str]:
    """The type's qualified name and the message: all of an exception that is kept."""
    return {
        "exception_type": qualified_name(type(exception)),
        "exception_message": str(exception),
    }


def load_exception(data: Any) -> Exception:
    """The way back; an UnreconstructedException when the type is gone or doesn't take one message."""
    if isinstance(data, Exception):
        return data
    name, message = data["exception_type"], data["exception_message"]
    if name == qualified_name(UnreconstructedException):
        return UnreconstructedException(message)
    try:
        cls = resolve(name)
        # The name comes from stored data: nothing but an exception is ever called.
        if isinstance(cls, type) and issubclass(cls, Exception):
            built: Exception = cls(message)
            return built
    except Exception as error:
        stand_in = UnreconstructedException(message, original_type=name)
        stand_in.__cause__ = error
        return stand_in
    return UnreconstructedException(message, original_type=name)


def _dump_event(event: Event, info: SerializationInfo) -> Any:
    from perdure.context.serializers import JsonSerializer

    encode = getattr(info.context, "serialize_value", None) or JsonSerializer().serialize_value
    return encode(event)


def _dump_optional_event(event: Event | None, info: SerializationInfo) -> Any:
    return None if event is None else _dump_event(event, info)


def _load_event(data: Any) -> Event:
    if isinstance(data, Event):
        return data
    from perdure.context.serializers import JsonSerializer

    event = JsonSerializer().deserialize_value(data)
    if not isinstance(event, Event):
        raise ValueError(f"an Event is needed here, this is {type(event).__name__}")
    return event


def _load_event_type(data: Any) -> type[Event]:
    cls = data if isinstance(data, type) else resolve(data)
    if not isinstance(cls, type) or not issubclass(cls, Event):
        raise ValueError(f"an Event class is needed here, {data!r} isn't one")
    return cls


def _or_none(function: Any) -> Any:
    return lambda value: None if value is None else function(value)


SerializableEvent = Annotated[Event, PlainSerializer(_dump_event), PlainValidator(_load_event)]
SerializableOptionalEvent = Annotated[
    Event | None, PlainSerializer(_dump_optional_event), PlainValidator(_or_none(_load_event))
]
SerializableException = Annotated[
    Exception, PlainSerializer(dump_exception, return_type=dict[str, str]), PlainValidator(load_exception)
]
SerializableOptionalException = Annotated[
    Exception | None, PlainSerializer(_or_none(dump_exception)), PlainValidator(_or_none(load_exception))
]
SerializableEventType = Annotated[
    type[Event], PlainSerializer(qualified_name, return_type=str), PlainValidator(_load_event_type)
]


class StartEvent(Event):
    """Begins a run: `run(**kwargs)` builds it."""


class StopEvent(Event):
    """Ends a run when a step returns it. `result` is the run's result; of a subclass, the event is."""

    _result: Any = PrivateAttr(default=None)

    def __init__(self, result: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if result is not None:
            self._result = result

    def _get_result(self) -> Any:
        """For subclasses to say what their result is."""
        return self._result

    @property
    def result(self) -> Any:
        return self._get_result()

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """The fields, and `result` when there is one. Dynamic data is left out, as in the origin."""
        dumped: dict[str, Any] = handler(self)
        if self._result is not None:
            dumped["result"] = encode_dynamic(self._result, info)
        # A store must give back all that the step returned, so a serializer does get the dynamic data.
        if self._data and hasattr(info.context, "serialize_value"):
            dumped["_data"] = encode_dynamic(self._data, info)
        return dumped

    def __repr__(self) -> str:
        shown = {**self._data, **dict(self.__dict__)}
        if self._result is not None:
            shown["result"] = self._result
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def __str__(self) -> str:
        return str(self._result)


class WorkflowTimedOutEvent(StopEvent):
    """The run was alive for longer than `timeout` seconds, with `active_steps` running then."""

    timeout: float
    active_steps: list[str]


class WorkflowCancelledEvent(StopEvent):
    """The run was cancelled."""


class IdleReleasedEvent(StopEvent):
    """An idle run was released; it goes on elsewhere or later."""


class WorkflowFailedEvent(StopEvent):
    """A step failed for good. attempts, elapsed_seconds: None when no step's attempt is to blame."""

    step_name: str
    exception: SerializableException
    attempts: int | None = None
    elapsed_seconds: float | None = None


class StepFailedEvent(Event):
    """What a `@catch_error` handler takes. elapsed_seconds: since the first attempt began."""

    step_name: str
    input_event: SerializableEvent
    exception: SerializableException
    attempts: int
    elapsed_seconds: float
    failed_at: datetime


class InputRequiredEvent(Event):
    """Asks somebody outside for an answer; published to the stream when a step returns it."""


class HumanResponseEvent(Event):
    """An answer from outside."""


class InternalDispatchEvent(Event):
    """The root of what the engine tells of itself, to those who ask for it."""


class StepState(Enum):
    """PREPARING: waits for a free worker; RUNNING; NOT_RUNNING: has ended."""

    PREPARING = "preparing"
    RUNNING = "running"
    NOT_RUNNING = "not_running"


class StepStateChanged(InternalDispatchEvent):
    """An execution of step `name` came to `step_state`; event names look like `<class 'mod.Ev'>`."""

    name: str
    step_state: StepState
    worker_id: str
    input_event_name: str
    output_event_name: str | None = None


class UnhandledEvent(InternalDispatchEvent):
    """No step took an event. idle: whether nothing else was going on."""

    event_type: str
    qualified_name: str
    step_name: str | None = None
    idle: bool


class WorkflowIdleEvent(InternalDispatchEvent):
    """Nothing is queued or running: the run waits for an event from outside, or for its timeout."""


class CollectionReleaseEvent(Event):
    """The events of a stream, as a step with a list parameter gets them."""

    events: list[SerializableEvent] = Field(default_factory=list)
    stream_id: str = ""
    binding_id: str = ""
