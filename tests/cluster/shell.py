"""Commands as a user types them, and waiting for what they show."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


class CommandFailed(AssertionError):
    """A command ended with a status other than 0; the message holds its output."""

    def __init__(self, command: tuple[str, ...], status: int, output: str, errors: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {status}:\n{errors}\n{output}".rstrip())
        self.status = status
        self.output = output
        self.errors = errors


def run(
    *command: str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
    cwd: str | None = None,
) -> str:
    """The command's standard output. Raises CommandFailed, and TimeoutExpired after `timeout` seconds."""
    done = subprocess.run(
        command,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        env=env,
        timeout=timeout,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandFailed(command, done.returncode, done.stdout, done.stderr)
    return done.stdout


def wait_for(probe: Callable[[], T | None], within: float, what: str, every: float = 0.2) -> T:
    """The first true answer of `probe`, asked at least twice. A failing command counts as not yet."""
    deadline = time.monotonic() + within
    asked_late = False
    while True:
        try:
            answer: object = probe()
            if answer:
                return answer  # type: ignore[return-value]
        except CommandFailed as error:
            answer = error
        if asked_late:
            raise AssertionError(f"not within {within:g} s: {what}; at last: {answer!r}")
        asked_late = time.monotonic() > deadline
        time.sleep(every)
