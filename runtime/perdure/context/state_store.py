"""A run's state: `ctx.store`. Live objects in memory; each change is told to whoever makes it durable."""

from __future__ import annotations

import asyncio
import copy
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, Self, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from perdure.context import fields
from perdure.context.paths import MISSING, find, put, split
from perdure.errors import ContextSerdeError
from perdure.events import DictLikeModel
from perdure.naming import qualified_name

if TYPE_CHECKING:
    from perdure.context.serializers import BaseSerializer

_SCALARS = (str, int, bool, bytes, type(None))
# The one key that the origin leaves out of a snapshot without an error.
_SKIPPED_KEYS = frozenset({"memory"})


class DictState(DictLikeModel):
    """State without declared fields: any key goes."""

    def __init__(self, /, **params: Any) -> None:
        super().__init__(**params)


MODEL_T = TypeVar("MODEL_T", bound=BaseModel, default=DictState)


class UnserializableKeyWarning(Warning):
    """A key that is known not to be serializable was left out of a snapshot."""


class Change(NamedTuple):
    """A change of one top-level key. value: for set its whole value, for append the list of new items.

    Values of typed state come as the field's type dumps them, where JSON has no form of its own for it.
    """

    op: Literal["set", "append", "delete"]
    key: str
    value: Any


Write = Callable[[Sequence[Change]], Awaitable[None]]


class StateStore(Protocol[MODEL_T]):
    """What a state store offers."""

    @property
    def state_type(self) -> type[MODEL_T]: ...

    async def get(self, path: str, default: Any = ...) -> Any: ...

    async def set(self, path: str, value: Any) -> None: ...

    async def get_state(self) -> MODEL_T: ...

    async def set_state(self, state: MODEL_T) -> None: ...

    async def clear(self) -> None: ...

    def edit_state(self) -> AbstractAsyncContextManager[MODEL_T]: ...

    def to_dict(self, serializer: BaseSerializer) -> dict[str, Any]: ...


class InMemoryStateStore(Generic[MODEL_T]):
    """State as a live model. Reads see what is committed in memory; writers wait for `edit_state`.

    write: told each change right after the live state has it, and awaited before the method returns.
    It must take the changes before it first suspends, so that they are in order. When it raises, the
    change is taken back: what it refused must not be left as if it were kept.
    """

    def __init__(self, initial_state: MODEL_T, *, write: Write | None = None) -> None:
        self.write = write
        self._state = initial_state
        self._editor: asyncio.Task[Any] | None = None
        self._edited: asyncio.Future[None] | None = None

    @property
    def state_type(self) -> type[MODEL_T]:
        return type(self._state)

    async def get(self, path: str, default: Any = ...) -> Any:
        """What stands at `path`; `default` when nothing does. Raises ValueError without a default."""
        found = find(self._state, path)
        if found is not MISSING:
            return found
        if default is ...:
            raise ValueError(f"Path {path!r} not found in state")
        return default

    async def set(self, path: str, value: Any) -> None:
        """Put `value` at `path`; dicts on the way are made. Raises ValueError where that can't be."""
        if self._edited is not None:
            await self._free()
        undo = put(self._state, path, value)
        await self._tell(lambda: self._changed(split(path)[0]), undo)

    async def append(self, path: str, *items: Any) -> None:
        """Append to the list at `path`, made when missing. O(items) at a top-level key."""
        await self.extend(path, items)

    async def extend(self, path: str, items: Iterable[Any]) -> None:
        """As append. Raises ValueError when something other than a list is there."""
        if self._edited is not None:
            await self._free()
        new = list(items)
        found = find(self._state, path)
        if found is MISSING or found is None:
            await self.set(path, new)
            return
        if not isinstance(found, list):
            raise ValueError(f"Path {path!r} holds a {type(found).__name__}, not a list to append to")
        before = len(found)
        found.extend(new)

        def undo_extend() -> None:
            del found[before : before + len(new)]

        def changes() -> list[Change]:
            key, *below = split(path)
            changed = self._changed(key)
            if below:
                return changed
            return [Change("append", key, change.value[before:]) for change in changed]

        await self._tell(changes, undo_extend)

    async def get_state(self) -> MODEL_T:
        """A shallow copy of the state."""
        return self._state.model_copy()

    async def set_state(self, state: MODEL_T) -> None:
        """Replace the state; one of a parent type is merged. Raises ValueError for another type."""
        if self._edited is not None:
            await self._free()
        await self._replace(self._merged(state))

    async def clear(self) -> None:
        """Back to the defaults. Raises ValueError when a field has none."""
        if self._edited is not None:
            await self._free()
        try:
            fresh = type(self._state)()
        except ValueError as error:
            raise ValueError("State must have defaults for all fields") from error
        await self._replace(fresh)

    @asynccontextmanager
    async def edit_state(self) -> AsyncIterator[MODEL_T]:
        """A copy to change: it becomes the state when the block ends, and is dropped when it raises.

        Other writers wait meanwhile; a writer called inside the block raises RuntimeError.
        """
        if self._edited is not None:
            await self._free()
        self._editor = asyncio.current_task()
        self._edited = asyncio.get_running_loop().create_future()
        try:
            draft = fields.deep_copy(self._state)
            yield draft
            changes, undo = self._swap(draft)
        finally:
            edited, self._editor, self._edited = self._edited, None, None
            edited.set_result(None)
        await self._tell(changes, undo)

    def export(self) -> dict[str, Any]:
        """Each top-level key and its value, as `restore` takes them; excluded fields are left out."""
        return {key: fields.dump(self._state, key) for key in fields.keys(self._state)}

    @classmethod
    def restore(
        cls, state_type: type[MODEL_T], values: Mapping[str, Any], *, write: Write | None = None
    ) -> Self:
        """The store of a state that `export`, or the changes told to `write`, described."""
        return cls(fields.build(state_type, values), write=write)

    def to_dict(self, serializer: BaseSerializer) -> dict[str, Any]:
        """The state as JSON types. Raises ValueError when a value can't be serialized."""
        data: Any
        if type(self._state) is DictState:
            data = {"_data": self._dynamic_data(serializer)}
        else:
            data = serializer.serialize(self._state)
        return {
            "store_type": "in_memory",
            "state_type": type(self._state).__name__,
            "state_module": type(self._state).__module__,
            "state_data": data,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], serializer: BaseSerializer) -> Self:
        """The way back; `{}` is an empty DictState. Raises ValueError for what isn't such a dict."""
        if not data:
            return cls(cast(MODEL_T, DictState()))
        if data.get("store_type", "in_memory") != "in_memory":
            raise ValueError(
                f"the state is of a {data['store_type']!r} store: only 'in_memory' can be read here"
            )
        payload = data.get("state_data", {})
        if isinstance(payload, str):
            state = serializer.deserialize(payload)
            if not isinstance(state, BaseModel):
                raise ValueError(f"state_data holds a {type(state).__name__}, not a pydantic model")
            return cls(cast(MODEL_T, state))
        if not isinstance(payload, Mapping) or not isinstance(payload.get("_data", {}), Mapping):
            raise ContextSerdeError("state_data is neither a serialized model nor {'_data': {...}}")
        values: dict[str, Any] = {}
        for key, text in payload.get("_data", {}).items():
            try:
                values[key] = serializer.deserialize(text)
            except ValueError as error:
                raise ValueError(f"Failed to deserialize state value for key {key}: {error}") from error
        return cls(cast(MODEL_T, DictState(_data=values)))

    def _dynamic_data(self, serializer: BaseSerializer) -> dict[str, str]:
        texts: dict[str, str] = {}
        for key in fields.keys(self._state):
            try:
                texts[key] = serializer.serialize(fields.dump(self._state, key))
            except ValueError as error:
                if key not in _SKIPPED_KEYS:
                    raise ValueError(f"Failed to serialize state value for key {key}: {error}") from error
                warnings.warn(
                    f"the state's key {key!r} can't be serialized and is left out: set it again after restoring",
                    UnserializableKeyWarning,
                    stacklevel=3,
                )
        return texts

    async def _free(self) -> None:
        """Wait until no edit_state block is open. What follows up to its next await is undisturbed."""
        while self._edited is not None:
            if self._editor is asyncio.current_task():
                raise RuntimeError("writer called inside edit_state: mutate the yielded state instead")
            await asyncio.shield(self._edited)

    def _changed(self, key: str) -> list[Change]:
        """The change that writes `key` anew; none for an excluded field."""
        field = type(self._state).model_fields.get(key)
        if field is not None and field.exclude:
            return []
        return [Change("set", key, fields.dump(self._state, key))]

    def _merged(self, state: BaseModel) -> MODEL_T:
        mine, given = type(self._state), type(state)
        if issubclass(given, mine):
            # Its giver may go on changing the object: the live state must be nobody else's.
            return cast(MODEL_T, copy.copy(state))
        if not issubclass(mine, given):
            raise ValueError(f"State must be of type {mine.__name__} or a parent type, got {given.__name__}")
        merged = copy.copy(self._state)
        for key in given.model_fields:
            setattr(merged, key, getattr(state, key))
        if isinstance(merged, DictLikeModel) and isinstance(state, DictLikeModel):
            merged._data.update(state.items())
        return merged

    async def _replace(self, state: MODEL_T) -> None:
        await self._tell(*self._swap(state))

    def _swap(self, state: MODEL_T) -> tuple[Callable[[], list[Change]], Callable[[], None]]:
        """Make `state` the live one. Returns what lists the changes that this is, and the way back."""
        old = self._state
        self._state = state

        def changes() -> list[Change]:
            kept = fields.keys(state)
            found = [Change("delete", key, None) for key in fields.keys(old) if key not in set(kept)]
            for key in kept:
                before, now = find(old, key), find(state, key)
                # Equality says only of scalars that nothing has to be written; the writer compares the rest.
                if type(before) is not type(now) or not isinstance(now, _SCALARS) or before != now:
                    found += self._changed(key)
            return found

        def undo() -> None:
            if self._state is state:
                self._state = old

        return changes, undo

    async def _tell(self, changes: Callable[[], Sequence[Change]], undo: Callable[[], None]) -> None:
        if self.write is None:
            return
        try:
            found = changes()
            if found:
                await self.write(found)
        except Exception:
            undo()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({qualified_name(self.state_type)})"
