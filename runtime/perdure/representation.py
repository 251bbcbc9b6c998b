"""A workflow as a graph to draw: its steps, events and resources as nodes, what goes where as edges.

Names and fields are those of llama-index-workflows' `workflows.representation`, so that its drawing tools
read these graphs, too.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict

from perdure.collectors import accepts
from perdure.decorators import StepConfig, StepFunction
from perdure.events import Event, HumanResponseEvent, InputRequiredEvent
from perdure.resource import Resource, ResourceConfig, ResourceDescriptor
from perdure.utils import get_steps_from_class

if TYPE_CHECKING:
    from perdure.workflow import Workflow

__all__ = [
    "WorkflowEventNode",
    "WorkflowExternalNode",
    "WorkflowGenericNode",
    "WorkflowGraph",
    "WorkflowGraphEdge",
    "WorkflowGraphNode",
    "WorkflowNodeBase",
    "WorkflowResourceConfigNode",
    "WorkflowResourceNode",
    "WorkflowStepNode",
    "get_workflow_representation",
]

EXTERNAL = "external_step"


class WorkflowNodeBase(BaseModel):
    """id: what edges name it by. label: what people read."""

    id: str
    label: str

    def truncated_label(self, max_length: int) -> str:
        """The label, cut to `max_length` characters."""
        return self.label if len(self.label) <= max_length else self.label[: max_length - 1] + "*"


class _OfTypes(WorkflowNodeBase):
    """A node that may stand for an event, whose class and parents' names it has."""

    def is_subclass_of(self, type_name: str) -> bool:
        """Whether the event's class is `type_name` or inherits from it; by name."""
        return type_name in (getattr(self, "event_types", None) or ())


class WorkflowStepNode(WorkflowNodeBase):
    """A step. description: its docstring."""

    node_type: Literal["step"] = "step"
    description: str | None = None


class WorkflowEventNode(_OfTypes):
    """An event. event_types: its class and those it inherits from, below Event. produced_by: steps."""

    node_type: Literal["event"] = "event"
    event_type: str
    event_types: list[str]
    event_schema: dict[str, Any] | None = None
    produced_by: list[str] = []


class WorkflowExternalNode(WorkflowNodeBase):
    """Whoever is outside: gets InputRequiredEvents, sends HumanResponseEvents."""

    node_type: Literal["external"] = "external"


class WorkflowResourceNode(WorkflowNodeBase):
    """A resource. source_file, source_line: where its factory is defined."""

    node_type: Literal["resource"] = "resource"
    type_name: str | None = None
    getter_name: str | None = None
    source_file: str | None = None
    source_line: int | None = None
    description: str | None = None


class WorkflowResourceConfigNode(WorkflowNodeBase):
    """A model read from a file. config_value: what the file holds now, None when it can't be read."""

    node_type: Literal["resource_config"] = "resource_config"
    type_name: str | None = None
    config_file: str | None = None
    path_selector: str | None = None
    config_schema: dict[str, Any] | None = None
    config_value: dict[str, Any] | None = None
    description: str | None = None


class WorkflowGenericNode(_OfTypes):
    """A node of a kind that this version doesn't know; it keeps all its fields."""

    model_config = ConfigDict(extra="allow")

    node_type: str
    event_type: str | None = None
    event_types: list[str] | None = None


WorkflowGraphNode: TypeAlias = (
    WorkflowStepNode
    | WorkflowEventNode
    | WorkflowExternalNode
    | WorkflowResourceNode
    | WorkflowResourceConfigNode
    | WorkflowGenericNode
)


class WorkflowGraphEdge(BaseModel):
    """From a node to another; label: the parameter that a resource fills."""

    source: str
    target: str
    label: str | None = None


class WorkflowGraph(BaseModel):
    """name: of the workflow's class. description: its docstring."""

    name: str
    nodes: list[WorkflowGraphNode]
    edges: list[WorkflowGraphEdge]
    description: str | None = None

    def filter_by_node_type(self, *node_types: str) -> WorkflowGraph:
        """The graph without the nodes of these types: what came through one goes on to what it led to."""
        gone = {node.id for node in self.nodes if node.node_type in node_types}
        onward: dict[str, list[str]] = {}
        for edge in self.edges:
            onward.setdefault(edge.source, []).append(edge.target)
        edges: dict[tuple[str, str], WorkflowGraphEdge] = {}
        for edge in self.edges:
            if edge.source not in gone:
                for target in _kept(edge.target, gone, onward):
                    label = edge.label if target == edge.target else None
                    edges.setdefault(
                        (edge.source, target),
                        WorkflowGraphEdge(source=edge.source, target=target, label=label),
                    )
        kept = [node for node in self.nodes if node.id not in gone]
        return self.model_copy(update={"nodes": kept, "edges": list(edges.values())})


def get_workflow_representation(workflow: Workflow[Any] | type[Workflow[Any]]) -> WorkflowGraph:
    """The graph of a workflow or its class, told from the steps' signatures."""
    cls: type[Any] = workflow if isinstance(workflow, type) else type(workflow)
    functions = get_steps_from_class(cls)
    configs = {name: cast("StepFunction[..., Any]", f)._step_config for name, f in functions.items()}
    graph = _Drawing(configs)
    for name, config in configs.items():
        graph.add(
            WorkflowStepNode(id=name, label=name, description=_doc(functions[name])),
            name,
        )
        graph.add_events(name, config)
        for parameter in config.resources:
            graph.add_resource(name, parameter.name, parameter.definition, parameter.annotation)
    return WorkflowGraph(
        name=cls.__name__, nodes=list(graph.nodes.values()), edges=graph.edges, description=_doc(cls)
    )


class _Drawing:
    """The graph as it grows."""

    def __init__(self, configs: dict[str, StepConfig]) -> None:
        self._configs = configs
        self.nodes: dict[str, WorkflowGraphNode] = {}
        self.edges: list[WorkflowGraphEdge] = []

    def add(self, node: WorkflowGraphNode, key: str) -> bool:
        """Whether it is new."""
        if key in self.nodes:
            return False
        self.nodes[key] = node
        return True

    def edge(self, source: str, target: str, label: str | None = None) -> None:
        edge = WorkflowGraphEdge(source=source, target=target, label=label)
        if edge not in self.edges:
            self.edges.append(edge)

    def add_events(self, name: str, config: StepConfig) -> None:
        returned = (*config.return_types, *config.return_list_types)
        for kind in returned:
            self.add_event(kind)
            self.edge(name, kind.__name__)
            if issubclass(kind, InputRequiredEvent):
                self.add(WorkflowExternalNode(id=EXTERNAL, label=EXTERNAL), EXTERNAL)
                self.edge(kind.__name__, EXTERNAL)
        produced = {kind for other in self._configs.values() for kind in _returned(other)}
        taken = [kind for kind in produced if accepts(config, config.accepted_events, kind)]
        for kind in (*config.accepted_events, *sorted(taken, key=lambda kind: kind.__name__)):
            self.add_event(kind)
            self.edge(kind.__name__, name)
            if issubclass(kind, HumanResponseEvent):
                self.add(WorkflowExternalNode(id=EXTERNAL, label=EXTERNAL), EXTERNAL)
                self.edge(EXTERNAL, kind.__name__)

    def add_event(self, kind: type[Event]) -> None:
        parents = [c.__name__ for c in kind.__mro__ if issubclass(c, Event) and c is not Event]
        self.add(
            WorkflowEventNode(
                id=kind.__name__,
                label=kind.__name__,
                event_type=kind.__name__,
                event_types=parents or [kind.__name__],
                event_schema=_schema(kind),
                produced_by=sorted(name for name, c in self._configs.items() if kind in _returned(c)),
            ),
            kind.__name__,
        )

    def add_resource(self, user: str, parameter: str, resource: ResourceDescriptor, annotation: Any) -> None:
        key = f"{type(resource).__name__}:{resource.key(annotation)}"
        # Stable from one process to the next, unlike id(): a drawing may be compared with an older one.
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        prefix = "resource_config" if isinstance(resource, ResourceConfig) else "resource"
        node = f"{prefix}_{digest}"
        new = self.add(_resource_node(node, resource, annotation), node)
        self.edge(user, node, parameter)
        if new:  # a circle of factories ends here
            for name, needed, kind in resource.dependencies():
                self.add_resource(node, name, needed, kind)


def _resource_node(node: str, resource: ResourceDescriptor, annotation: Any) -> WorkflowGraphNode:
    type_name: str = getattr(annotation, "__name__", None) or str(annotation)
    if isinstance(resource, ResourceConfig):
        value: dict[str, Any] | None
        try:
            value = resource.load(annotation).model_dump(mode="json")
        except (ValueError, OSError):
            value = None  # a drawing is no check of the files that the workflow will need: validate() is
        return WorkflowResourceConfigNode(
            id=node,
            label=resource.label or type_name,
            type_name=type_name,
            config_file=resource.config_file,
            path_selector=resource.path_selector,
            config_schema=_schema(annotation),
            config_value=value,
            description=resource.description,
        )
    factory = resource.factory if isinstance(resource, Resource) else None
    file, line = _source(factory)
    return WorkflowResourceNode(
        id=node,
        label=type_name,
        type_name=type_name,
        getter_name=resource.name,
        source_file=file,
        source_line=line,
        description=_doc(factory),
    )


def _kept(node: str, gone: set[str], onward: dict[str, list[str]]) -> Iterable[str]:
    """`node`, or if it is gone, the first nodes after it that are not."""
    pending, seen = [node], set[str]()
    while pending:
        current = pending.pop(0)
        if current not in gone:
            yield current
        elif current not in seen:
            seen.add(current)
            pending += onward.get(current, ())


def _returned(config: StepConfig) -> tuple[type[Event], ...]:
    return config.return_types + config.return_list_types


def _doc(thing: Any) -> str | None:
    text = getattr(thing, "__doc__", None)
    return inspect.cleandoc(text) if isinstance(text, str) else None


def _schema(kind: Any) -> dict[str, Any] | None:
    try:
        schema: dict[str, Any] = kind.model_json_schema()
    except Exception:  # pydantic has many errors for a field that JSON has no form of
        return None
    return schema


def _source(factory: Any) -> tuple[str | None, int | None]:
    try:
        return inspect.getsourcefile(factory), inspect.getsourcelines(factory)[1]
    except (TypeError, OSError):  # built in, or made at a prompt
        return None, None
