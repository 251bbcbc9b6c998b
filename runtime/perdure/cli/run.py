"""`perdure run`: from a target to a result, with a Redis, a supervisor and a display around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from perdure.cli.connect import connect
from perdure.cli.console import Console
from perdure.cli.display import Display, display_for, steps_known
from perdure.cli.errors import UsageError
from perdure.cli.report import show_failure, show_result
from perdure.cli.target import Target
from perdure.control.api import WorkflowRun
from perdure.control.outcome import Outcome, decode_outcome, decode_summary
from perdure.local.embedded import EmbeddedRedis
from perdure.local.errors import LocalError
from perdure.local.state import NAMESPACE, RunFolder, is_over
from perdure.local.supervisor import GRACE_SECONDS, Sight, Supervisor
from perdure.store.base import StoreFacts
from perdure.store.durability import doubts, judge
from perdure.store.redis import RedisStore
from perdure.store.sealing import KEYS_VARIABLE, seal_of

COMPLETED, ENDED_OTHERWISE, BAD_INPUT = 0, 1, 2
FIRST_CONNECT_SECONDS = 10.0
POLL_SECONDS = 0.25
DRAIN_SECONDS = GRACE_SECONDS + 2.0


@dataclass(slots=True, frozen=True)
class Options:
    target: Target
    folder: Path
    redis_url: str | None
    fresh: bool
    kill_runner: bool


def execute(options: Options, console: Console) -> int:
    """Run or resume; the exit status. Raises PerdureError for what the user has to mend."""
    folder = RunFolder(options.folder, options.target.run.metadata.name)
    with folder.locked():
        return asyncio.run(_Command(options, folder, console).run())


class _Command:
    def __init__(self, options: Options, folder: RunFolder, console: Console) -> None:
        self._options = options
        self._folder = folder
        self._console = console
        self._stopped_by: signal.Signals | None = None
        self._supervisor: Supervisor | None = None
        self._outcome: Outcome | None = None
        self._kill_at = random.uniform(0.2, 0.7) if options.kill_runner else None
        self._ending: asyncio.Task[bool] | None = None

    async def run(self) -> int:
        self._heed_signals()
        old = self._old()
        resumed = old if old is not None and not is_over(old) and not self._options.fresh else None
        _check_keys(resumed or self._options.target.run)
        if resumed is not None:
            self._folder.check_store(self._options.redis_url is not None)
        async with self._redis(resumed is None) as (store, url, embedded):
            run = self._resume(resumed) if resumed is not None else await self._begin(old, store)
            with display_for(self._console, self._folder.name) as display:
                supervisor = Supervisor(
                    self._folder,
                    run,
                    store,
                    redis_url=url,
                    source_path=self._source_path(),
                    poll=POLL_SECONDS,
                    on_sight=lambda sight: self._seen(sight, display),
                    on_event=display.event,
                    on_output=display.line,
                    before_look=embedded.ensure_running if embedded is not None else lambda: None,
                )
                self._supervisor = supervisor
                if self._stopped_by is not None:
                    supervisor.stop()
                run = await supervisor.until_over()
                if not is_over(run):
                    await self._let_go(supervisor, display)
        return self._report(run, str(supervisor.processes.log))

    # --- begin ------------------------------------------------------------------------------------------

    def _old(self) -> WorkflowRun | None:
        try:
            return self._folder.read()
        except LocalError:
            if self._options.fresh:
                return None
            raise

    def _resume(self, old: WorkflowRun) -> WorkflowRun:
        said = f"Resuming run '{self._folder.name}', at attempt {max(1, old.status.attempt)}."
        if old.spec != self._options.target.run.spec:
            said += " It goes on as it was started, though its manifest or input differs now; --new starts afresh."
        self._console_line(said)
        return old

    async def _begin(self, old: WorkflowRun | None, store: RedisStore) -> WorkflowRun:
        if self._options.redis_url is not None:
            self._folder.clear()
            if old is not None:
                await store.run(NAMESPACE, old.metadata.uid).clean()
            self._folder.note_store(store.where)
        return self._folder.create(self._options.target.run, self._options.target.modules)

    def _source_path(self) -> str:
        ours = str(self._folder.source.resolve())
        given = self._options.target.source_path
        return f"{ours}{os.pathsep}{given}" if self._folder.source.is_dir() else given

    @contextlib.asynccontextmanager
    async def _redis(self, new: bool) -> AsyncIterator[tuple[RedisStore, str, EmbeddedRedis | None]]:
        """The store of a `new` or a resumed run. An embedded one begins empty with a new run."""
        url = self._options.redis_url
        if url is not None:
            store, facts = await connect(url, patience=FIRST_CONNECT_SECONDS, tell=self._console_line)
            self._warn(store, facts)
            try:
                yield store, url, None
            finally:
                await store.close()
            return
        embedded = EmbeddedRedis(self._folder.redis)
        try:
            if new:
                embedded.prepare()
                self._folder.clear()  # before the server has files open in it
            embedded.start()
            store = RedisStore.from_url(embedded.url)
            yield store, embedded.url, embedded
            await store.close()
        finally:
            embedded.stop()

    def _warn(self, store: RedisStore, facts: StoreFacts) -> None:
        """The embedded one is what it is; a Redis of one's own may be other than one believes."""
        spec = self._options.target.run.spec
        said = judge(doubts(facts, spec.recovery.lease_seconds), spec.checkpoint.replicas)
        if said.status != "True":
            self._console_line(f"Warning: {store.where}: {said.message} ({said.reason})")

    def _console_line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    # --- meanwhile --------------------------------------------------------------------------------------

    def _seen(self, sight: Sight, display: Display) -> None:
        display.sight(sight)
        meta = sight.store.meta
        if meta is None:
            return
        if meta.outcome is not None:
            self._outcome = decode_outcome(meta.outcome)
        elif self._kill_at is not None and self._supervisor is not None:
            summary = decode_summary(meta.summary)
            done, known = summary.completed_steps, steps_known(summary)
            if done >= 3 and done >= self._kill_at * known:
                pid = self._supervisor.processes.kill()
                if pid is not None:
                    self._kill_at = None
                    display.line(
                        f"kill -9 {pid}: the runner is gone after commit {meta.seq}, as --kill-runner asked"
                    )

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(sig, self._asked_to_stop, sig)
        # Python has this one as an error at the next write; here it is what it is for other commands.
        self._console.when_closed = lambda: self._asked_to_stop(signal.SIGPIPE)

    def _asked_to_stop(self, sig: signal.Signals) -> None:
        if self._stopped_by is not None and self._supervisor is not None:
            self._supervisor.processes.kill()  # asked twice: no more waiting
        self._stopped_by = sig
        if self._supervisor is not None:
            self._supervisor.stop()

    async def _let_go(self, supervisor: Supervisor, display: Display) -> None:
        if supervisor.processes.alive:
            display.line("Stopping: steps in flight may reach their next commit (again to stop at once)")
        await supervisor.processes.end_all(DRAIN_SECONDS)
        await supervisor.note_progress()

    # --- end --------------------------------------------------------------------------------------------

    def _report(self, run: WorkflowRun, log: str) -> int:
        if not is_over(run):
            self._console.print("Interrupted: the same command resumes it.")
            return 128 + (self._stopped_by or signal.SIGINT)
        if run.status.is_true("Succeeded") and self._outcome is not None:
            show_result(self._console, run, self._outcome)
            if self._kill_at is not None:
                self._console.print("(the run ended before --kill-runner came to it)")
            return COMPLETED
        show_failure(self._console, run, self._outcome, log)
        invalid = run.status.failure is not None and run.status.failure.reason == "InvalidSpec"
        return BAD_INPUT if invalid else ENDED_OTHERWISE


def _check_keys(run: WorkflowRun) -> None:
    """Raises UsageError when the keys that the manifest asks for aren't there: a Secret is the cluster's."""
    keys = os.environ.get(KEYS_VARIABLE, "")
    if run.spec.checkpoint.encryption_keys_ref is not None and not keys:
        raise UsageError(
            f"spec.checkpoint.encryptionKeysRef: on this machine the keys come from the variable {KEYS_VARIABLE}, which"
            " is empty: set it to ID:BASE64 entries, the first of which encrypts"
        )
    try:
        seal_of(run.spec.checkpoint.compression, keys)
    except ValueError as error:
        raise UsageError(f"{KEYS_VARIABLE}: {error}") from error
