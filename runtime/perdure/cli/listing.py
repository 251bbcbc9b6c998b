"""`perdure list` and `perdure get`: the runs of this machine, from their folders alone."""

from __future__ import annotations

from pathlib import Path

import typer
import yaml

from perdure.cli.errors import UsageError
from perdure.cli.table import print_table
from perdure.control.times import to_rfc3339
from perdure.local.errors import AlreadyRunningError, LocalError
from perdure.local.state import RunFolder, is_over, names

COLUMNS = ("name", "phase", "steps", "started", "workflow")


def show_all(root: Path) -> None:
    """One row for each run under `root`; a line where there is none."""
    rows = [_row(RunFolder(root, name)) for name in names(root)]
    if not rows:
        typer.echo(f"No runs under {root}: perdure run begins one.", err=True)
        return
    print_table(COLUMNS, rows, numbers=("steps",))


def resource(name: str, root: Path) -> str:
    """The run as YAML. Raises UsageError, LocalError."""
    run = RunFolder(root, name).read() if name in names(root) else None
    if run is None:
        there = ", ".join(names(root)) or "none"
        raise UsageError(f"there is no run {name!r} under {root} (there: {there})")
    return yaml.safe_dump(run.to_json(), sort_keys=False, allow_unicode=True)


def _row(folder: RunFolder) -> tuple[str, ...]:
    try:
        run = folder.read()
    except LocalError:
        return (folder.name, "Unreadable", "", "", "")
    assert run is not None
    status = run.status
    # A status says what was last decided; whether anybody still decides, the lock does.
    phase = status.phase if is_over(run) or _is_held(folder) else "Interrupted"
    started = f"{to_rfc3339(status.start_time)[:19]}Z" if status.start_time is not None else ""
    steps = str(status.progress.completed_steps)
    return (folder.name, phase, steps, started, run.spec.workflow.entrypoint)


def _is_held(folder: RunFolder) -> bool:
    try:
        with folder.locked():
            return False
    except AlreadyRunningError:
        return True
