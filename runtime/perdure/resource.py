"""Resources that steps have injected: `Annotated[T, Resource(factory)]`, `Annotated[M, ResourceConfig(file)]`."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from pydantic import BaseModel

from perdure.errors import WorkflowValidationError
from perdure.naming import qualified_name

if TYPE_CHECKING:
    from perdure.utils import ResourceParameter

T = TypeVar("T")


@runtime_checkable
class ResourceDescriptor(Protocol):
    """What in an Annotated makes a parameter an injected one."""

    @property
    def name(self) -> str:
        """What it is called in messages, and the key by which `ResourceManager.set` replaces it."""
        ...

    @property
    def cache(self) -> bool: ...

    def key(self, annotation: Any) -> str:
        """What the cached value for a parameter of type `annotation` is known by."""
        ...

    def dependencies(self) -> Sequence[tuple[str, ResourceDescriptor, Any]]:
        """The resources that making this one needs, as (parameter, resource, type)."""
        ...

    async def make(self, resolution: Resolution, annotation: Any) -> Any:
        """A new value; `annotation` is the parameter's type."""
        ...


@dataclass(frozen=True)
class ResourceDefinition:
    """A parameter and the resource that fills it."""

    name: str
    resource: ResourceDescriptor
    type_annotation: Any = None


class Resource(Generic[T]):
    """A value made by `factory`, sync or async, which may take resources itself.

    cache: one value for all steps and runs of a workflow, shared by the factory's `__qualname__`; else
    a new one for each execution of a step. `*args` and `**kwargs` of the factory get nothing.
    """

    def __init__(self, factory: Callable[..., T | Awaitable[T]], cache: bool = True) -> None:
        self.factory = factory
        self.cache = cache
        self.name: str = getattr(factory, "__qualname__", None) or type(factory).__qualname__
        # Names that postponed annotations of a local factory may mean, from where the step is decorated.
        self.localns: Mapping[str, Any] | None = None
        self._dependencies: list[tuple[str, ResourceDescriptor, Any]] | None = None

    def key(self, annotation: Any) -> str:
        return self.name

    async def make(self, resolution: Resolution, annotation: Any) -> Any:
        arguments = {
            name: await resolution.get(resource, kind) for name, resource, kind in self.dependencies()
        }
        made = self.factory(**arguments)
        return await made if inspect.isawaitable(made) else made

    def dependencies(self) -> Sequence[tuple[str, ResourceDescriptor, Any]]:
        if self._dependencies is None:
            self._dependencies = self._read_signature()
        return self._dependencies

    def _read_signature(self) -> list[tuple[str, ResourceDescriptor, Any]]:
        function: Any = self.factory
        if inspect.isclass(function):
            function = function.__init__
        elif not hasattr(function, "__annotations__"):
            function = function.__call__
        function = inspect.unwrap(function)
        # Without the return: nobody reads it, and what it names is often imported for type checkers only.
        wanted = {name: hint for name, hint in _annotations(function).items() if name != "return"}
        reader = SimpleNamespace(__annotations__=wanted, __globals__=getattr(function, "__globals__", {}))
        # What the factory's own module says goes before what the step's surroundings call the same.
        localns = {k: v for k, v in (self.localns or {}).items() if k not in reader.__globals__}
        try:
            hints = get_type_hints(reader, localns=localns, include_extras=True)
        except NameError as error:
            raise WorkflowValidationError(
                f"resource {self.name}: an annotation names {error.name!r}, which isn't defined in its module"
            ) from error
        found: list[tuple[str, ResourceDescriptor, Any]] = []
        for name, hint in hints.items():
            if get_origin(hint) is not Annotated:
                continue
            kind, *metadata = get_args(hint)
            for needed in metadata:
                if isinstance(needed, ResourceDescriptor):
                    if isinstance(needed, Resource) and needed.localns is None:
                        needed.localns = self.localns
                    found.append((name, needed, kind))
                    break
        return found

    def __repr__(self) -> str:
        return f"Resource({self.name}, cache={self.cache})"


class ResourceConfig:
    """A pydantic model, the one in the annotation, read from a JSON file.

    path_selector: dotted path to the object within the file. label, description: for people.
    Raises ValueError at once unless the file's name ends in .json.
    """

    cache = True

    def __init__(
        self,
        config_file: str,
        path_selector: str | None = None,
        label: str | None = None,
        description: str | None = None,
    ) -> None:
        if Path(config_file).suffix != ".json":
            raise ValueError(
                f"Only JSON files can be used to load Pydantic-based resources, not {config_file!r}"
            )
        self.config_file = config_file
        self.path_selector = path_selector
        self.label = label
        self.description = description

    @property
    def name(self) -> str:
        return self.config_file if self.path_selector is None else f"{self.config_file}.{self.path_selector}"

    def key(self, annotation: Any) -> str:
        # One file may be read as several models.
        return f"{self.name} as {qualified_name(annotation)}" if isinstance(annotation, type) else self.name

    def dependencies(self) -> Sequence[tuple[str, ResourceDescriptor, Any]]:
        return ()

    async def make(self, resolution: Resolution, annotation: Any) -> Any:
        return self.load(annotation)

    def load(self, annotation: Any) -> BaseModel:
        """The model, read and validated. Raises ValueError or OSError that says what is wrong."""
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            raise ValueError(
                f"ResourceConfig({self.config_file!r}) needs a pydantic model, not {annotation!r}"
            )
        # By its whole path: a relative one is another file once the process changed its directory.
        data: Any = json.loads(_read(Path(self.config_file).absolute()))
        for segment in (self.path_selector or "").split("."):
            if segment:
                if not isinstance(data, dict) or segment not in data:
                    raise ValueError(
                        f"{self.config_file} has nothing at {self.path_selector!r} ({segment!r})"
                    )
                data = data[segment]
        if not isinstance(data, dict):
            where = f" at {self.path_selector!r}" if self.path_selector else ""
            raise ValueError(f"{self.config_file}{where} holds a {type(data).__name__}, not an object")
        return annotation.model_validate(data)

    def __repr__(self) -> str:
        return f"ResourceConfig({self.name!r})"


class ResourceManager:
    """A workflow's cached resources, by name; shared by its steps and runs."""

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}
        self._making: dict[str, asyncio.Task[Any]] = {}

    async def get(self, resource: ResourceDescriptor, annotation: Any = None) -> Any:
        """The value of `resource`, made when there is none. Raises ValueError for a circle of factories."""
        return await Resolution(self).get(resource, annotation)

    async def resolve(self, parameters: Iterable[ResourceParameter]) -> dict[str, Any]:
        """The values of one execution's parameters, by name; an uncached resource is made once for all."""
        resolution = Resolution(self)
        return {p.name: await resolution.get(p.definition, p.annotation) for p in parameters}

    async def set(self, name: str, val: Any) -> None:
        """Give the value of a resource, such as another one for a test."""
        self.resources[name] = val

    def get_all(self) -> dict[str, Any]:
        """All cached values by name."""
        return self.resources

    async def shared(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """The cached value, made by `make` when there is none and nobody is making it."""
        while name not in self.resources:
            making = self._making.get(name)
            if making is None or making.get_loop() is not asyncio.get_running_loop():
                making = asyncio.ensure_future(_run(make))
                self._making[name] = making
                making.add_done_callback(lambda done: self._made(name, done))
            # Shielded: a step that is cancelled must not take the value away from the others that wait.
            value = await asyncio.shield(making)
            self.resources.setdefault(name, value)
        return self.resources[name]

    def _made(self, name: str, done: asyncio.Task[Any]) -> None:
        if self._making.get(name) is done:
            del self._making[name]
        if not done.cancelled() and done.exception() is None:
            self.resources.setdefault(name, done.result())


class Resolution:
    """The making of one execution's resources; what isn't cached is made once and kept here."""

    __slots__ = ("_manager", "_own")

    def __init__(self, manager: ResourceManager) -> None:
        self._manager = manager
        self._own: dict[str, Any] = {}

    async def get(self, resource: ResourceDescriptor, annotation: Any) -> Any:
        key = resource.key(annotation)
        if resource.cache:
            for known in (resource.name, key):
                if known in self._manager.resources:
                    return self._manager.resources[known]
            # Before anything waits: two executions that make the two halves of a circle would wait for ever.
            check_circle(resource)
            return await self._manager.shared(key, lambda: resource.make(self, annotation))
        if key not in self._own:
            check_circle(resource)
            self._own[key] = await resource.make(self, annotation)
        return self._own[key]


def check_circle(resource: ResourceDescriptor, path: tuple[str, ...] = ()) -> None:
    """Raise ValueError when making `resource` needs itself, on whatever way."""
    if resource.name in path:
        circle = " -> ".join((*path[path.index(resource.name) :], resource.name))
        raise ValueError(f"Circular resource dependency detected: {circle}")
    for _, needed, _ in resource.dependencies():
        check_circle(needed, (*path, resource.name))


def _annotations(function: Any) -> dict[str, Any]:
    return getattr(function, "__annotations__", None) or {}


async def _run(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()


@lru_cache(maxsize=128)
def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such file: {path}") from error
