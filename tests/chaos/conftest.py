"""What the tests on bare runners share: runs that are cleared away, and the notes of their steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.bare import BareRun, Make


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The file that the runs of `make` note in what their steps do."""
    return tmp_path / "notes"


@pytest.fixture
def make(redis_url: str, tmp_path: Path, notes: Path) -> Iterator[Make]:
    """Makes runs by entrypoint, in the shared Redis or in that of `url`; their runners are killed at the end."""
    made: list[BareRun] = []

    def build(entrypoint: str, url: str = redis_url, **given: Any) -> BareRun:
        run = BareRun(url, tmp_path, entrypoint, notes=str(notes), **given)
        made.append(run)
        return run

    yield build
    for run in made:
        run.close()
