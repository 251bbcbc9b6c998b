"""One named run on this machine: its folder, its lock, and its resource in a file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from perdure.control.api import WorkflowRun
from perdure.control.problems import explain
from perdure.control.status import WorkflowRunStatus
from perdure.control.times import to_rfc3339
from perdure.local.errors import AlreadyRunningError, LocalError

NAMESPACE = "local"  # of every run outside a cluster


class RunFolder:
    """`.perdure/runs/NAME`. Hold `locked()` around everything else."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.path = root / "runs" / name
        self._file = self.path / "run.json"

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    def note_store(self, where: str) -> None:
        """The run's state is in the Redis at `where`, not in one of this folder."""
        (self.path / "store").write_text(where)

    def check_store(self, given: bool) -> None:
        """Whether a Redis is `given` by URL must be as it was when the run began. Raises LocalError."""
        if given and self.redis.is_dir():
            raise LocalError(
                f"run '{self.name}' keeps its state in {self.redis}, not in a Redis of yours: leave --redis (and "
                "PERDURE_REDIS) out"
            )
        if not given and not self.redis.is_dir():
            try:
                where = (self.path / "store").read_text()
            except FileNotFoundError:
                where = "a Redis of yours"
            raise LocalError(f"run '{self.name}' keeps its state in {where}: name that with --redis URL")

    @property
    def source(self) -> Path:
        """The modules that came with the manifest, as they were when the run began."""
        return self.path / "source"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """This process alone runs the run of that name. Raises AlreadyRunningError, LocalError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise LocalError(
                f"can't write to {self.path}: {error.strerror}; name another folder by --dir"
            ) from error
        with lock:
            _lock(lock, self.name)
            yield

    def read(self) -> WorkflowRun | None:
        """The run as it was last written; None when there is none. Raises LocalError."""
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return None
        try:
            return WorkflowRun.model_validate(json.loads(text), strict=False)
        except ValidationError as error:
            problem = explain(error, WorkflowRun)[0]
            raise LocalError(
                f"{self._file} can't be read ({problem}); it was written by another version of Perdure. "
                "--new begins afresh"
            ) from error
        except ValueError as error:
            raise LocalError(f"{self._file} is not JSON ({error}); --new begins afresh") from error

    def clear(self) -> None:
        """Remove all that an earlier run left here. No server may be using it."""
        for left in self.path.iterdir():
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def create(
        self, run: WorkflowRun, modules: Mapping[str, str] | None = None, *, uid: str = ""
    ) -> WorkflowRun:
        """Begin a new run under this name, with a uid of its own unless it has one. `clear` before."""
        metadata = run.metadata.model_copy(
            update={"namespace": NAMESPACE, "uid": uid or str(uuid.uuid4()), "resource_version": "0"}
        )
        fresh = run.model_copy(update={"metadata": metadata, "status": WorkflowRunStatus()})
        if modules is not None:
            self.source.mkdir()
            for name, text in modules.items():
                (self.source / name).write_text(text)
        self._write(fresh)
        return fresh

    def write_status(self, run: WorkflowRun, status: WorkflowRunStatus) -> WorkflowRun:
        """The run with `status`, if nobody wrote it since `run` was read. Raises LocalError."""
        stored = self.read()
        if stored is None or (stored.metadata.uid, stored.metadata.resource_version) != (
            run.metadata.uid,
            run.metadata.resource_version,
        ):
            raise LocalError(f"{self._file} was changed by another process; run the command again")
        version = str(int(run.metadata.resource_version or "0") + 1)
        metadata = run.metadata.model_copy(update={"resource_version": version})
        written = run.model_copy(update={"metadata": metadata, "status": status})
        self._write(written)
        return written

    def _write(self, run: WorkflowRun) -> None:
        fresh = self._file.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(run.to_json(), file, indent=2)
            file.flush()
            os.fsync(file.fileno())  # an epoch must be on disk before a runner uses it
        fresh.replace(self._file)


def _lock(lock: IO[str], name: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "of unknown id"
        raise AlreadyRunningError(
            f"run '{name}' is already being run by process {holder}; wait for it, stop it, or give this one "
            "another --name"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()} (since {to_rfc3339(time.time())})")
    lock.flush()


def is_over(run: WorkflowRun) -> bool:
    return run.status.completion_time is not None


def names(root: Path) -> list[str]:
    """Of the runs under `root`, in order."""
    return sorted(file.parent.name for file in root.glob("runs/*/run.json"))
