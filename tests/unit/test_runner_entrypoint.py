"""What `workflow.entrypoint` may name, and what one reads when it names something else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure import Workflow
from perdure.errors import EntrypointError
from perdure.runner.entrypoint import add_source_path, load_workflow

MODULE = """
from perdure import Workflow, step
from perdure.events import StartEvent, StopEvent

class Flow(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=1)

class Needy(Workflow):
    def __init__(self, url, retries=3):
        super().__init__()
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=1)

instance = Flow()
number = 7
class Plain: ...
def make(): return Flow()
def nothing(): return None
async def later(): return Flow()
def bad(): return 1 / 0
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    add_source_path(str(tmp_path))
    (tmp_path / "flows_for_test.py").write_text(MODULE)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.endswith("_for_test"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["Flow", "instance", "make"])
def test_a_class_an_instance_and_a_function_are_workflows(modules: Path, name: str) -> None:
    assert isinstance(load_workflow(f"flows_for_test:{name}"), Workflow)


def test_a_file_is_named_by_its_path(modules: Path) -> None:
    (modules / "sub").mkdir()
    (modules / "sub" / "other_for_test.py").write_text(MODULE)
    assert isinstance(load_workflow(f"{modules}/sub/other_for_test.py:Flow"), Workflow)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("flow", r"; did you mean Flow\?$"),
        ("zzz", r"has no 'zzz' \(workflows in it: Flow, Needy, instance\)$"),
        ("number", "number is a int"),
        ("Plain", "the class flows_for_test.Plain"),
        ("Needy", r"needs arguments \(url\)"),
        ("nothing", r"nothing\(\) returned None"),
        ("later", "is async"),
        ("bad", r"ZeroDivisionError: division by zero \(.*flows_for_test.py, line"),
    ],
)
def test_what_is_no_workflow_is_described(modules: Path, name: str, told: str) -> None:
    with pytest.raises(EntrypointError, match=told):
        load_workflow(f"flows_for_test:{name}")


def test_a_module_that_is_not_there_says_where_it_was_looked_for(modules: Path) -> None:
    with pytest.raises(EntrypointError, match=f"no module 'nowhere_for_test'. Looked in {modules}"):
        load_workflow("nowhere_for_test:Flow")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import not_installed_here", "needs the module 'not_installed_here', which isn't installed"),
        ("x = = 1", r"SyntaxError.*broken_for_test.py, line 1"),
        ("raise RuntimeError('no')", r"RuntimeError: no \(.*broken_for_test.py, line 1\)"),
        ("import sys; sys.exit(75)", r"calls sys.exit\(75\) when it is imported"),
    ],
)
def test_a_module_that_can_not_be_imported_says_why(modules: Path, source: str, told: str) -> None:
    (modules / "broken_for_test.py").write_text(source)
    with pytest.raises(EntrypointError, match=told):
        load_workflow("broken_for_test:Flow")


@pytest.mark.parametrize("entrypoint", ["flows", ":x", "flows:", ""])
def test_an_entrypoint_without_its_parts_says_what_it_must_look_like(entrypoint: str) -> None:
    with pytest.raises(EntrypointError, match=r"package\.module:NAME"):
        load_workflow(entrypoint)


def test_a_file_that_is_not_there_is_named(modules: Path) -> None:
    with pytest.raises(EntrypointError, match=r"there is no file /nowhere/flow\.py"):
        load_workflow("/nowhere/flow.py:Flow")
