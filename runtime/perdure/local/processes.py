"""Runners as child processes: what pods are in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perdure.control.observation import Pod, PodState
from perdure.runner.parentage import leash
from perdure.runner.settings import RunnerSettings

KEPT = 4  # dead runners that are still shown to `decide`


@dataclass(slots=True)
class _Runner:
    name: str
    uid: str
    epoch: int
    started: float
    process: asyncio.subprocess.Process | None  # None: another supervisor's, found dead
    words: Path
    tasks: list[asyncio.Task[None]]
    exit_code: int | None = None
    finished: float | None = None
    deleting: bool = False


class Processes:
    """The runners that one supervisor started, and what is known of its predecessor's.

    on_change: called when a runner ended. on_output: a line that a runner's code printed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_change: Callable[[], None],
        on_output: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._note = folder / "runner.json"
        self._log = folder / "runner.log"
        self._on_change = on_change
        self._on_output = on_output
        self._clock = clock
        self._runners: list[_Runner] = []
        self._adopt_leftover()

    @property
    def log(self) -> Path:
        """Where the runners' own logs go."""
        return self._log

    @property
    def alive(self) -> bool:
        return any(runner.finished is None for runner in self._runners)

    def pods(self) -> tuple[Pod, ...]:
        return tuple(self._pod(runner) for runner in self._runners)

    async def start(self, name: str, settings: RunnerSettings) -> None:
        """Start the runner of `settings.epoch`, unless there is or was one: an epoch is used once."""
        if any(runner.epoch == settings.epoch for runner in self._runners):
            return
        words = self._folder / f"termination-{settings.epoch}"
        words.unlink(missing_ok=True)
        settings = settings.model_copy(update={"termination_log": str(words)})
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "perdure.runner.main",
                env={**os.environ, **settings.to_env(), "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor, which lets the runner drain
                preexec_fn=leash(signal.SIGKILL),
            )
        runner = _Runner(name, settings.holder, settings.epoch, self._clock(), process, words, [])
        runner.tasks = [
            asyncio.create_task(self._read(process)),
            asyncio.create_task(self._await_end(runner)),
        ]
        self._runners = [*self._runners[-KEPT:], runner]
        self._write_note(runner)

    def delete(self, uid: str, grace: int | None) -> None:
        """Ask the runner of that uid to end, or end it when `grace` is 0."""
        for runner in self._runners:
            if runner.uid == uid and runner.finished is None:
                if grace == 0:
                    self._signal(runner, signal.SIGKILL)
                elif not runner.deleting:
                    self._signal(runner, signal.SIGTERM)
                runner.deleting = True

    def kill(self) -> int | None:
        """SIGKILL to the newest live runner, all of it; its pid, or None when there is none."""
        for runner in reversed(self._runners):
            if runner.finished is None and runner.process is not None:
                self._signal(runner, signal.SIGKILL)
                return runner.process.pid
        return None

    async def end_all(self, patience: float) -> bool:
        """SIGTERM to all that live, SIGKILL after `patience` seconds; whether all ended by themselves."""
        for runner in self._runners:
            self.delete(runner.uid, None)
        ends = [task for runner in self._runners for task in runner.tasks]
        if not ends:
            return True
        _, late = await asyncio.wait(ends, timeout=patience)
        if late:
            for runner in self._runners:
                self.delete(runner.uid, 0)
            await asyncio.wait(ends)
        return not late

    # --- one runner ------------------------------------------------------------------------------------

    def _pod(self, runner: _Runner) -> Pod:
        ended = runner.finished is not None
        message = ""
        if ended:
            with contextlib.suppress(OSError):  # it left no last words
                message = runner.words.read_text(errors="replace")
        return Pod(
            name=runner.name,
            uid=runner.uid,
            epoch=runner.epoch,
            state=PodState.FINISHED if ended else PodState.RUNNING,
            since=runner.finished if runner.finished is not None else runner.started,
            deleting=runner.deleting,
            exit_code=runner.exit_code,
            message=message,
            # Its supervisor went down and took it along: no fault of the workflow's.
            disrupted=runner.process is None,
            reason="SupervisorGone" if runner.process is None else "",
            finished_at=runner.finished,
        )

    async def _await_end(self, runner: _Runner) -> None:
        assert runner.process is not None
        code = await runner.process.wait()
        runner.exit_code = 128 - code if code < 0 else code
        runner.finished = self._clock()
        # What its steps started is its own: in a pod it would have ended as well.
        self._signal(runner, signal.SIGKILL)
        self._on_change()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line longer than the buffer; what was read of it is gone
                continue
            if not line:
                return
            self._on_output(line.decode(errors="replace").rstrip("\n"))

    @staticmethod
    def _signal(runner: _Runner, sig: signal.Signals) -> None:
        assert runner.process is not None
        with contextlib.suppress(ProcessLookupError):
            if sig == signal.SIGKILL:
                os.killpg(runner.process.pid, sig)  # its group is its own
            else:
                runner.process.send_signal(sig)

    # --- a predecessor's -------------------------------------------------------------------------------

    def _write_note(self, runner: _Runner) -> None:
        assert runner.process is not None
        note = {
            "name": runner.name,
            "uid": runner.uid,
            "epoch": runner.epoch,
            "pid": runner.process.pid,
            "birth": _birth(runner.process.pid),
            "started": runner.started,
        }
        fresh = self._note.with_suffix(f".{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(note))
        fresh.replace(self._note)

    def _adopt_leftover(self) -> None:
        """The last runner of a supervisor that was killed: see to it that it is dead, and say so."""
        try:
            note = json.loads(self._note.read_text())
            pid, birth = int(note["pid"]), note["birth"]
            runner = _Runner(
                name=note["name"],
                uid=note["uid"],
                epoch=int(note["epoch"]),
                started=float(note["started"]),
                process=None,
                words=self._folder / f"termination-{note['epoch']}",
                tasks=[],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return
        if birth is None:
            return  # this system can't tell whether it lives; its lease will
        if _birth(pid) == birth:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        runner.finished = self._clock()
        self._runners.append(runner)


def _birth(pid: int) -> str | None:
    """What tells a process from a later one with the same pid; None when that can't be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None if sys.platform != "linux" else ""
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"
