"""One runner as a process under test, with no supervisor around it: the test is the operator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from perdure.control.outcome import Outcome, decode_outcome
from perdure.runner.settings import RunnerSettings
from perdure.store.base import RunFacts, RunStore
from perdure.store.records import input_record
from perdure.store.redis import RedisStore

T = TypeVar("T")
HERE = Path(__file__).parent
NAMESPACE = "chaos"
LEASE = 3.0  # seconds


class BareRun:
    """A run in a real Redis, and the runners that are started for it, one epoch each."""

    def __init__(
        self, url: str, folder: Path, entrypoint: str, *, lease: float = LEASE, **given: Any
    ) -> None:
        self.url = url
        self.uid = str(uuid.uuid4())
        self.folder = folder
        self.entrypoint = entrypoint
        self.lease = lease
        self.epoch = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ask(lambda run: run.init(input_record(given)))

    def _ask(self, question: Callable[[RunStore], Awaitable[T]]) -> T:
        async def ask() -> T:
            store = RedisStore.from_url(self.url)
            try:
                return await question(store.run(NAMESPACE, self.uid))
            finally:
                await store.close()

        return asyncio.run(ask())

    def facts(self) -> RunFacts:
        return self._ask(lambda run: run.facts())

    def outcome(self) -> Outcome | None:
        meta = self.facts().meta
        return decode_outcome(meta.outcome) if meta is not None and meta.outcome is not None else None

    def take_over(self, cause: str = "Crashed") -> None:
        """The fence, as an operator puts it up; `start` then starts the successor."""
        self.epoch += 1
        self._ask(lambda run: run.advance(self.epoch, cause))

    def start(
        self, *, through: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """The runner of the present epoch; `through` is another URL to the same Redis."""
        self.epoch = max(self.epoch, 1)
        settings = self.settings(through)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "perdure.runner.main"],
                env={**os.environ, **settings.to_env(), **(env or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def settings(self, through: str | None = None) -> RunnerSettings:
        """Those of a runner of the present epoch."""
        return RunnerSettings(
            namespace=NAMESPACE,
            run="under-test",
            uid=self.uid,
            epoch=self.epoch,
            attempt=self.epoch,
            holder=f"pod-{len(self.processes)}",
            entrypoint=self.entrypoint,
            redis_url=through or self.url,
            lease_seconds=self.lease,
            grace_seconds=8,
            source_path=str(HERE / "workflows"),
            termination_log=str(self.words),
        )

    @property
    def log(self) -> Path:
        return self.folder / f"runner-{self.epoch}.log"

    @property
    def words(self) -> Path:
        return self.folder / f"words-{self.epoch}"

    def last_words(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.words.read_text())
        return found

    def engine(self, process: subprocess.Popen[bytes]) -> int:
        """The pid of the runner's child."""
        return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])

    def signal_all(self, process: subprocess.Popen[bytes], sig: signal.Signals) -> None:
        os.killpg(process.pid, sig)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


Make = Callable[..., BareRun]
