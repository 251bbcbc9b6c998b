"""What an import brings with it: told by the modules that are there afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh Python has after `statement`."""
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_importing_perdure_loads_nothing_before_it_is_asked_for() -> None:
    loaded = loaded_by("import perdure")
    assert not loaded & {"pydantic", "asyncio", "msgspec", "perdure.workflow"}


def test_writing_a_workflow_loads_nothing_that_only_runs_need() -> None:
    loaded = loaded_by(
        "from perdure import Context, Workflow, WorkflowHandler, catch_error, step\n"
        "from perdure.events import Event, StartEvent, StopEvent\n"
        "class Flow(Workflow):\n"
        "    @step\n"
        "    async def only(self, ctx: Context, event: StartEvent) -> StopEvent:\n"
        "        return StopEvent()\n"
        "Flow().validate()"
    )
    assert not loaded & {"msgspec", "redis", "hiredis", "structlog", "typer", "rich", "yaml"}
    assert not [name for name in loaded if name.startswith("perdure.store")]
    assert "perdure.run" not in loaded


def test_running_one_in_memory_loads_nothing_of_redis_or_the_command_line() -> None:
    loaded = loaded_by("import perdure.in_memory")
    assert not loaded & {"redis", "hiredis", "structlog", "typer", "rich", "yaml"}


def test_the_modules_are_there_as_attributes_and_everything_public_is_listed() -> None:
    import perdure

    assert perdure.events.Event.__module__ == "perdure.events"
    assert set(perdure.__all__) <= set(dir(perdure))
    for name in perdure.__all__:
        assert getattr(perdure, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = perdure.nothing
