"""A named run on this machine: one at a time, its status under a version, nothing left of an old one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.control.api import Metadata, WorkflowRef, WorkflowRun, WorkflowRunSpec
from perdure.local.errors import AlreadyRunningError, LocalError
from perdure.local.state import RunFolder, is_over


def a_run(name: str = "documents") -> WorkflowRun:
    return WorkflowRun(
        metadata=Metadata(name=name),
        spec=WorkflowRunSpec(workflow=WorkflowRef(entrypoint="m:W"), input={"n": 1}),
    )


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "documents")
    with folder.locked():
        assert folder.read() is None
        made = folder.create(a_run())
        status = made.status.model_copy(update={"epoch": 3, "start_time": 1700000000.25})
        written = folder.write_status(made, status)
        assert folder.read() == written
        assert not is_over(written)
        assert written.metadata.namespace == "local"


def test_a_status_decided_on_an_older_one_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "documents")
    with folder.locked():
        made = folder.create(a_run())
        folder.write_status(made, made.status.model_copy(update={"epoch": 1}))
        with pytest.raises(LocalError, match="was changed by another process"):
            folder.write_status(made, made.status.model_copy(update={"epoch": 2}))


def test_a_new_run_has_a_uid_of_its_own_and_nothing_of_the_old_ones_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "documents")
    with folder.locked():
        first = folder.create(a_run(), {"m.py": "x = 1"})
        assert (folder.source / "m.py").read_text() == "x = 1"
        folder.redis.mkdir()
        (folder.redis / "appendonly.aof").write_text("old")
        folder.clear()
        second = folder.create(a_run())
        assert first.metadata.uid != second.metadata.uid
        assert not folder.redis.exists()
        assert not folder.source.exists()


def test_two_processes_can_not_run_one_name_at_once(tmp_path: Path) -> None:
    holder = (
        "import sys, pathlib; from perdure.local.state import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1]), 'documents').locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(
                AlreadyRunningError, match=f"'documents' is already being run by process {other.pid}"
            ),
            RunFolder(tmp_path, "documents").locked(),
        ):
            pass
        with RunFolder(tmp_path, "another").locked():
            pass
    finally:
        other.kill()
        other.wait()
    with RunFolder(tmp_path, "documents").locked():  # a kill lets go of it
        assert str(os.getpid()) in (tmp_path / "runs" / "documents" / "lock").read_text()


@pytest.mark.parametrize("text", ["{", json.dumps({"spec": 3})])
def test_a_file_that_can_not_be_read_says_so(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path, "documents")
    with folder.locked():
        (folder.path / "run.json").write_text(text)
        with pytest.raises(LocalError, match="--new begins afresh"):
            folder.read()


def test_a_run_is_looked_for_where_its_state_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    with folder.locked():
        folder.note_store("Redis at there:6379")
        folder.check_store(given=True)
        with pytest.raises(
            LocalError, match=r"keeps its state in Redis at there:6379: name that with --redis"
        ):
            folder.check_store(given=False)
        folder.clear()
        folder.redis.mkdir()
        folder.check_store(given=False)
        with pytest.raises(LocalError, match="leave --redis"):
            folder.check_store(given=True)
