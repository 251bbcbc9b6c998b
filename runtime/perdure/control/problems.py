"""What is wrong with what a user wrote: where, what, and what instead."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


@dataclass(slots=True, frozen=True)
class Problem:
    """path: parts of the field's name, as in `("spec", "recovery", "maxFailures")`."""

    path: tuple[str | int, ...]
    message: str

    @property
    def where(self) -> str:
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def explain(error: ValidationError, model: type[BaseModel], root: str = "") -> list[Problem]:
    """Each of pydantic's complaints as a Problem; `root` is what the model's fields lie under."""
    head = (root,) if root else ()
    problems: dict[tuple[str | int, ...], Problem] = {}
    for detail in error.errors():
        path, parent = _walk(detail["loc"], model)
        said = problems.get(path)
        if said is None:
            problems[path] = Problem((*head, *path), _message(detail, parent))
        elif detail["type"] == "string_type":  # the second half of "a number or a string"
            problems[path] = Problem(said.path, f"{said.message} or a string, as in 1Gi")
    return list(problems.values())


def _walk(
    loc: tuple[int | str, ...], model: type[BaseModel]
) -> tuple[tuple[str | int, ...], type[BaseModel] | None]:
    """The path without pydantic's own words in it, and the model that the last part is a field of."""
    path: list[str | int] = []
    here: Any = model
    parent: type[BaseModel] | None = model
    for part in loc:
        current = _model_in(here)
        if isinstance(part, int):
            path.append(part)
            continue
        if current is not None:
            parent = current
            field = next((f for name, f in current.model_fields.items() if part in (name, f.alias)), None)
            path.append(part if field is None else field.alias or part)
            here = None if field is None else field.annotation
        elif get_origin(_bare(here)) is dict:
            path.append(part)
            here, parent = get_args(_bare(here))[1], None
    return tuple(path), parent


def _bare(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    bare = _bare(annotation)
    if get_origin(bare) is list:
        return _model_in(get_args(bare)[0])
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


_WORDS = {
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object (key: value)",
    "model_type": "must be an object (key: value)",
    "model_attributes_type": "must be an object (key: value)",
    "list_type": "must be a list",
}


def _message(detail: ErrorDetails, parent: type[BaseModel] | None) -> str:
    kind, value, ctx = detail["type"], detail.get("input"), detail.get("ctx", {})
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden":
        return _unknown(name, parent)
    if kind == "missing":
        return "is missing; it is required"
    if kind == "literal_error":
        allowed = str(ctx.get("expected", "")).replace("'", "")
        return f"is {_show(value)}; it must be {allowed}{_close(str(value), allowed.replace(' or ', ', ').split(', '))}"
    if kind == "greater_than_equal":
        return f"is {_show(value)}; it must be at least {ctx['ge']}"
    if kind == "less_than_equal":
        return f"is {_show(value)}; it must be at most {ctx['le']}"
    if kind == "string_pattern_mismatch":
        if name == "entrypoint":
            return f"is {_show(value)}; it must be package.module:NAME, as in documents.workflow:workflow"
        if name == "name":
            return f"is {_show(value)}; use lower-case letters, digits, '-' and '.', as in documents-1"
        return f"is {_show(value)}; it must match {ctx['pattern']}"
    if kind == "string_too_long":
        return f"has {len(str(value))} characters; at most {ctx['max_length']} are allowed"
    if kind == "string_too_short":
        return "is empty; give it a value or leave the field out"
    if kind == "too_long":
        return f"has {ctx['actual_length']} items; at most {ctx['max_length']} are allowed"
    if kind == "value_error":
        return str(ctx.get("error", detail["msg"]))
    if kind in _WORDS:
        return f"is {_show(value)}; it {_WORDS[kind]}"
    return f"is {_show(value)}; {detail['msg'].lower()}"


def _unknown(name: str, parent: type[BaseModel] | None) -> str:
    known = [] if parent is None else [f.alias or n for n, f in parent.model_fields.items()]
    hint = _close(name, known)
    return f"is not a field{hint}" if hint else f"is not a field; those there are: {', '.join(known)}"


def _close(word: str, known: list[str]) -> str:
    if len(known) == 1:
        return ""
    by_lower = {one.lower().replace("_", ""): one for one in known}
    found = get_close_matches(word.lower().replace("_", ""), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""


def _show(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
