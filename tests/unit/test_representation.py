"""A workflow drawn from its signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel

from perdure import Workflow, catch_error, step
from perdure.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from perdure.representation import WorkflowGraph, get_workflow_representation
from perdure.resource import Resource, ResourceConfig


class Page(Event):
    """A page."""

    number: int


class Cover(Page):
    pass


class Question(InputRequiredEvent):
    pass


class Reply(HumanResponseEvent):
    pass


class Settings(BaseModel):
    depth: int = 1


def get_limit(settings: Annotated[Settings, ResourceConfig("settings.json", label="the settings")]) -> int:
    """How many."""
    return settings.depth


class Book(Workflow):
    """Reads a book."""

    @step
    async def open(self, ev: StartEvent, limit: Annotated[int, Resource(get_limit)]) -> list[Page] | Question:
        """Open it."""
        return []

    @step(accept_event_subclasses=True)
    async def read(self, ev: Page, limit: Annotated[int, Resource(get_limit)]) -> StopEvent:
        return StopEvent()

    @step
    async def ask(self, ev: Reply) -> Cover:
        return Cover(number=0)

    @catch_error
    async def mend(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent()


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkflowGraph:
    monkeypatch.chdir(tmp_path)
    Path("settings.json").write_text(json.dumps({"depth": 3}))
    return get_workflow_representation(Book())


def edges(graph: WorkflowGraph) -> set[tuple[str, str, str | None]]:
    label = {node.id: node.label for node in graph.nodes}
    return {(label[edge.source], label[edge.target], edge.label) for edge in graph.edges}


def test_steps_events_and_the_outside_are_joined_as_events_go(graph: WorkflowGraph) -> None:
    assert (graph.name, graph.description) == ("Book", "Reads a book.")
    assert {edge for edge in edges(graph) if edge[2] is None} == {
        ("StartEvent", "open", None),
        ("open", "Page", None),
        ("open", "Question", None),
        ("Question", "external_step", None),
        ("external_step", "Reply", None),
        ("Reply", "ask", None),
        ("ask", "Cover", None),
        ("Page", "read", None),
        ("Cover", "read", None),
        ("read", "StopEvent", None),
        ("StepFailedEvent", "mend", None),
        ("mend", "StopEvent", None),
    }


def test_a_resource_is_one_node_with_its_own_resources(graph: WorkflowGraph) -> None:
    assert {edge for edge in edges(graph) if edge[2] is not None} == {
        ("open", "int", "limit"),
        ("read", "int", "limit"),
        ("int", "the settings", "settings"),
    }
    (resource,) = (node for node in graph.nodes if node.node_type == "resource")
    assert (resource.getter_name, resource.description) == ("get_limit", "How many.")
    assert resource.source_file == __file__
    (config,) = (node for node in graph.nodes if node.node_type == "resource_config")
    assert (config.config_file, config.config_value, config.type_name) == (
        "settings.json",
        {"depth": 3},
        "Settings",
    )


def test_a_config_that_cannot_be_read_is_drawn_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Workflow):
        @step
        async def only(
            self, ev: StartEvent, s: Annotated[Settings, ResourceConfig("none.json")]
        ) -> StopEvent:
            return StopEvent()

    monkeypatch.chdir(tmp_path)
    (config,) = (n for n in get_workflow_representation(Other).nodes if n.node_type == "resource_config")
    assert config.config_value is None


def test_events_say_what_they_are_and_who_makes_them(graph: WorkflowGraph) -> None:
    cover = next(node for node in graph.nodes if node.id == "Cover")
    assert cover.is_subclass_of("Page")
    assert not cover.is_subclass_of("StopEvent")
    page = next(node for node in graph.nodes if node.id == "Page")
    assert page.event_schema["description"] == "A page."
    assert next(node for node in graph.nodes if node.id == "StopEvent").produced_by == ["mend", "read"]
    assert next(node for node in graph.nodes if node.id == "open").description == "Open it."
    assert next(node for node in graph.nodes if node.id == "open").truncated_label(3) == "op*"


def test_nodes_that_are_left_out_are_bridged(graph: WorkflowGraph) -> None:
    steps = graph.filter_by_node_type("event", "external", "resource", "resource_config")
    assert {node.node_type for node in steps.nodes} == {"step"}
    assert edges(steps) == {("open", "read", None), ("open", "ask", None), ("ask", "read", None)}


def test_a_graph_comes_back_from_its_json(graph: WorkflowGraph) -> None:
    text = graph.model_dump_json()
    assert WorkflowGraph.model_validate_json(text) == graph
    older = json.loads(text)
    for node in older["nodes"]:
        node.pop("produced_by", None)
    assert [type(node) for node in WorkflowGraph.model_validate(older).nodes] == [*map(type, graph.nodes)]
    newer = json.loads(text)
    newer["nodes"].append({"id": "n", "label": "n", "node_type": "agent", "memory": 3})
    assert WorkflowGraph.model_validate(newer).nodes[-1].model_extra == {"memory": 3}
