"""`Workflow`: the base class of what an author writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, cast
from weakref import WeakValueDictionary

from typing_extensions import TypeVar

from perdure.concurrency import RunSlots
from perdure.context.context import Context
from perdure.context.serializers import BaseSerializer, JsonSerializer
from perdure.context.state_store import DictState, InMemoryStateStore
from perdure.decorators import StepFunction
from perdure.engine.graph import Graph
from perdure.errors import WorkflowRuntimeError, WorkflowValidationError
from perdure.events import Event, StartEvent, StopEvent
from perdure.handler import WorkflowHandler
from perdure.resource import ResourceManager
from perdure.utils import get_steps_from_class
from perdure.validation import start_event_class, stop_event_class, validate
from perdure.validation import validate_resource_configs as check_resource_configs

if TYPE_CHECKING:
    # What runs a workflow is loaded by the first run: to write one takes none of it.
    from perdure.checkpoint import Checkpoint
    from perdure.engine.model import Codec
    from perdure.run import Run
    from perdure.store.base import Store

log = logging.getLogger("perdure.workflow")

ResultT = TypeVar("ResultT", default=Any)

DEFAULT_TIMEOUT = 45.0
GRAPH_CHECKS = frozenset({"reachability", "terminal_event", "dead_end"})


class _Unset:
    def __repr__(self) -> str:
        return str(DEFAULT_TIMEOUT)


_UNSET: Any = _Unset()


class Workflow(Generic[ResultT]):
    """A class whose methods, marked with `@step`, take events and return events.

    timeout: seconds that processes may be alive for one run, None for no limit; by default 45 in
    memory, as in the origin, and none with a store. A subclass whose `__init__` doesn't call
    `super().__init__()` has the defaults.

    Raises WorkflowConfigurationError at construction without exactly one start and one stop event
    class, WorkflowValidationError for options or (at the first run) a graph that can't work.
    """

    _step_functions: ClassVar[dict[str, Callable[..., Any]]] = {}

    _timeout: float | None = _UNSET
    _verbose: bool = False
    _disable_validation: bool = False
    _name: str | None = None
    _skip: frozenset[str] = frozenset()
    _given_serializer: BaseSerializer | None = None
    _given_resources: ResourceManager | None = None
    _limit: int | None = None
    _active: ClassVar[WeakValueDictionary[str, Run]] = WeakValueDictionary()  # in memory, by run_id
    _loop_slots: tuple[asyncio.AbstractEventLoop, RunSlots] | None = None
    _validated: Graph | None = None  # `add_step` makes another one

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._step_functions = {}

    def __init__(
        self,
        timeout: float | None = _UNSET,
        disable_validation: bool = False,
        verbose: bool = False,
        resource_manager: ResourceManager | None = None,
        num_concurrent_runs: int | None = None,
        workflow_name: str | None = None,
        skip_graph_checks: Collection[str] | None = None,
        serializer: BaseSerializer | None = None,
    ) -> None:
        unknown = set(skip_graph_checks or ()) - GRAPH_CHECKS
        if unknown:
            raise WorkflowValidationError(
                f"skip_graph_checks: {sorted(unknown)} are no checks; there are {sorted(GRAPH_CHECKS)}"
            )
        if num_concurrent_runs is not None and (
            type(num_concurrent_runs) is not int or num_concurrent_runs <= 0
        ):
            raise WorkflowValidationError(
                f"num_concurrent_runs must be a whole number above 0, not {num_concurrent_runs!r}"
            )
        self._timeout = timeout
        self._verbose = verbose
        self._disable_validation = disable_validation
        self._name = workflow_name
        self._skip = frozenset(skip_graph_checks or ())
        self._given_serializer = serializer
        self._given_resources = resource_manager
        self._limit = num_concurrent_runs
        start_event_class(self._graph.configs)
        stop_event_class(self._graph.configs)

    # --- what it is --------------------------------------------------------------------------------------

    @property
    def workflow_name(self) -> str:
        """The name given, else `module.QualName` of the class."""
        return self._name or f"{type(self).__module__}.{type(self).__qualname__}"

    @property
    def timeout(self) -> float | None:
        """Seconds a run in memory may be alive; with a store only a timeout that was given counts."""
        return DEFAULT_TIMEOUT if self._timeout is _UNSET else self._timeout

    @property
    def durable_timeout(self) -> float | None:
        return None if self._timeout is _UNSET else self._timeout

    @property
    def start_event_class(self) -> type[StartEvent]:
        return start_event_class(self._graph.configs)

    @property
    def stop_event_class(self) -> type[StopEvent]:
        return stop_event_class(self._graph.configs)

    @property
    def events(self) -> list[type[Event]]:
        """All event classes that the steps' signatures name."""
        found: dict[type[Event], None] = {}
        for config in self._graph.configs.values():
            found.update(dict.fromkeys(config.accepted_events))
            found.update(dict.fromkeys((*config.return_types, *config.return_list_types)))
        return list(found)

    @property
    def serializer(self) -> BaseSerializer:
        """The one given, else JSON that knows the workflow's own classes, wherever they are defined."""
        if self._given_serializer is not None:
            return self._given_serializer
        cls = type(self)
        shared: BaseSerializer | None = cls.__dict__.get("_own_serializer")
        if shared is None:
            shared = cls._own_serializer = JsonSerializer().with_types([*self.events, self._state_type])
        return shared

    @classmethod
    def add_step(cls, func: Callable[..., Any]) -> None:
        """Add a free function, decorated with `@step`, to this class."""
        config = getattr(func, "_step_config", None)
        if config is None:
            raise WorkflowValidationError(
                f"Step function {getattr(func, '__name__', func)!r} is not decorated: put @step above it"
            )
        if config.name in get_steps_from_class(cls):
            raise WorkflowValidationError(f"A step {config.name} is already part of {cls.__qualname__}")
        cls._step_functions[config.name] = func
        cls._compiled_graph = cls._own_serializer = None

    def validate(self, *, validate_resource_configs: bool = True, validate_resources: bool = False) -> bool:
        """Check the graph of steps and events. True when a person's answer takes part in it.

        validate_resources: make every resource once, too; not from a running event loop. Raises
        WorkflowConfigurationError or WorkflowValidationError.
        """
        configs = self._graph.configs
        start_event_class(configs)
        stop_event_class(configs)
        waits_for_people = validate(configs, skip=self._skip)
        if validate_resource_configs:
            check_resource_configs(configs)
        if validate_resources:
            asyncio.run(self._resolve_all())
        self._validated = self._graph
        return waits_for_people

    async def _resolve_all(self) -> None:
        for name, config in self._graph.configs.items():
            for needed in config.resources:
                try:
                    await self._resources.get(needed.definition, needed.annotation)
                except Exception as error:
                    raise WorkflowValidationError(
                        f"Resource validation failed: step {name!r}, parameter {needed.name!r}: {error}"
                    ) from error

    # --- running ------------------------------------------------------------------------------------------

    def run(
        self,
        ctx: Context[Any] | None = None,
        start_event: StartEvent | None = None,
        *,
        run_id: str | None = None,
        store: Store | None = None,
        durability: Literal["Strict", "Relaxed"] | None = None,
        checkpoint: Checkpoint | None = None,
        wait: bool = False,
        **kwargs: Any,
    ) -> WorkflowHandler[ResultT]:
        """Start a run in the running event loop; keyword arguments are the StartEvent's fields.

        ctx: go on with an unfinished run, or begin anew with a finished one's state.
        store: make it durable under `run_id`: an unfinished run of that id is resumed, a finished one
        gives its recorded result; `wait` waits while another holder has it. durability: "Strict" or
        "Relaxed"; `checkpoint` says that and more of how its state is kept.

        Inside a step it is a child workflow, as durable as the step's own run: see `perdure.children`.
        There `run_id` names it within that execution of the step, and with `store` it is no child, but a
        run of its own.
        """
        if self._validated is not self._graph and not self._disable_validation:
            self.validate()
        if store is not None:
            from dataclasses import replace

            from perdure.checkpoint import Checkpoint
            from perdure.program import run_in_program

            if ctx is not None or run_id is None:
                raise ValueError("a durable run needs run_id=, and its state is the store's: give no ctx")
            checkpoint = checkpoint or Checkpoint()
            if durability is not None:
                checkpoint = replace(checkpoint, durability=durability)
            fields = self._fields(start_event, kwargs)
            return run_in_program(self, store, run_id, fields, checkpoint=checkpoint, wait=wait)
        from perdure.in_memory import run_in_memory

        return run_in_memory(self, ctx, start_event, run_id, kwargs)

    @property
    def _slots(self) -> RunSlots | None:
        """Those of the running event loop: runs that another one left behind will never end."""
        if self._limit is None:
            return None
        loop = asyncio.get_running_loop()
        if self._loop_slots is None or self._loop_slots[0] is not loop:
            self._loop_slots = (loop, RunSlots(self._limit))
        return self._loop_slots[1]

    def _fields(self, first: StartEvent | None, fields: dict[str, Any]) -> dict[str, Any]:
        if first is None:
            return fields
        return {**{name: getattr(first, name) for name in type(first).model_fields}, **first.to_dict()}

    # --- for the engine ------------------------------------------------------------------------------------

    # Of the class, not inherited: all objects of it share them.
    _compiled_graph: ClassVar[Graph | None] = None
    _own_serializer: ClassVar[BaseSerializer | None] = None

    @property
    def _graph(self) -> Graph:
        cls = type(self)
        graph: Graph | None = cls.__dict__.get("_compiled_graph")
        if graph is None:
            graph = Graph(
                {
                    name: cast("StepFunction[..., Any]", f)._step_config
                    for name, f in get_steps_from_class(cls).items()
                }
            )
            cls._compiled_graph = graph
        return graph

    def _step(self, name: str) -> Callable[..., Any]:
        function = type(self)._step_functions.get(name)
        return function if function is not None else getattr(self, name)

    @property
    def _resources(self) -> ResourceManager:
        if self._given_resources is None:
            self._given_resources = ResourceManager()
        return self._given_resources

    @property
    def _state_type(self) -> type[Any]:
        """The most derived of the models that the steps' Contexts name. Raises ValueError for two chains."""
        chosen: type[Any] = DictState
        for config in self._graph.configs.values():
            kind = config.context_state_type
            if kind is None or issubclass(chosen, kind):
                continue
            if chosen is not DictState and not issubclass(kind, chosen):
                raise ValueError(
                    f"steps of {type(self).__qualname__} ask for the states {chosen.__name__} and "
                    f"{kind.__name__}: one must inherit from the other"
                )
            chosen = kind
        return chosen

    def _new_store(self) -> InMemoryStateStore[Any]:
        return InMemoryStateStore(self._state_type())

    def _restore_store(self, data: dict[str, Any], serializer: BaseSerializer) -> InMemoryStateStore[Any]:
        return InMemoryStateStore.from_dict(data, serializer)

    def _codec(self, serializer: BaseSerializer) -> Codec:
        from perdure.engine.model import Codec, EventCodec
        from perdure.unreadable import read_back

        def decode(data: bytes) -> Event:
            event = read_back(serializer, data, "an event of the run")
            if not isinstance(event, Event):
                raise WorkflowRuntimeError(f"the log holds a {type(event).__name__} where an event belongs")
            return event

        return Codec(EventCodec(lambda event: serializer.serialize(event).encode(), decode))
