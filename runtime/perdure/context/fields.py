"""A state model by its top-level keys: which there are, how each is written, copied and built again."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from perdure.events import DictLikeModel

ModelT = TypeVar("ModelT", bound=BaseModel)

_NATIVE = (str, int, float, bool, list, dict, type(None), Any, object)


def keys(state: BaseModel) -> list[str]:
    """The declared fields that are not excluded, and the dynamic keys."""
    names = [name for name, field in type(state).model_fields.items() if not field.exclude]
    if isinstance(state, DictLikeModel):
        names.extend(state.keys())
    return names


def dump(state: BaseModel, key: str) -> Any:
    """The value of `key` as a serializer gets it.

    A dynamic key, or a field of JSON's own types: the live value, so that models in it keep their type.
    Any other field: as its declared type dumps it, for JSON has no form of its own for a set or a date.
    """
    if isinstance(state, DictLikeModel) and key in state:
        return state[key]
    if _is_native(type(state), key):
        return getattr(state, key)
    dumped = state.model_dump(mode="json", include={key}, warnings=False)
    return dumped[key]


def build(state_type: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """The state that has `values`. A value its field refuses is kept as it is: it was set unchecked too.

    Raises ValidationError when a field without default has no value.
    """
    known = {key: value for key, value in values.items() if key in state_type.model_fields}
    dynamic = {key: value for key, value in values.items() if key not in state_type.model_fields}
    refused: dict[str, Any] = {}
    while True:
        try:
            state = state_type.model_validate(known, by_name=True, by_alias=False)
            break
        except ValidationError as error:
            names = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]} & known.keys()
            if not names:
                raise
            refused.update({name: known.pop(name) for name in names})
    for name, value in refused.items():
        # Around validate_assignment: this very value was the live one.
        state.__dict__[name] = value
    if isinstance(state, DictLikeModel):
        state._data.update(dynamic)
    return state


def deep_copy(state: ModelT) -> ModelT:
    """A copy that shares nothing but excluded fields and what can't be copied."""
    memo: dict[int, Any] = {}
    excluded = {name for name, field in type(state).model_fields.items() if field.exclude}
    copied = copy.copy(state)
    for name, value in list(copied.__dict__.items()):
        if name not in excluded:
            copied.__dict__[name] = _copy_value(value, memo)
    private = copied.__pydantic_private__
    if private:
        for name, value in private.items():
            private[name] = _copy_value(value, memo)
    return copied


def _copy_value(value: Any, memo: dict[int, Any]) -> Any:
    # Containers are walked here, so that one member that can't be copied doesn't make all be shared.
    known = memo.get(id(value))
    if known is not None:
        return known
    if type(value) is dict:
        result: Any = {}
        memo[id(value)] = result
        for key, item in value.items():
            result[key] = _copy_value(item, memo)
        return result
    if type(value) is list:
        result = []
        memo[id(value)] = result
        result.extend(_copy_value(item, memo) for item in value)
        return result
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        memo[id(value)] = value
        return value


@cache
def _is_native(state_type: type[BaseModel], key: str) -> bool:
    return _all_native(state_type.model_fields[key].annotation)


def _all_native(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _all_native(get_args(annotation)[0])
    if origin in (Union, types.UnionType, list, dict):
        return all(_all_native(part) for part in get_args(annotation))
    return annotation in _NATIVE
