"""`perdure run` as a process under test, and what its run left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"

MANIFEST = """
apiVersion: perdure.dev/v1alpha1
kind: WorkflowRun
metadata:
  name: {name}
spec:
  workflow:
    entrypoint: documents:Documents
  recovery:
    maxFailures: 1000
    backoffSeconds: 0
    leaseSeconds: {lease}
  input: {input}
"""


def some_documents(folder: Path, count: int) -> Path:
    """Real text, from the topics of the language reference, cut into `count` files."""
    from pydoc_data.topics import topics

    folder.mkdir()
    texts = [topics[name] for name in sorted(topics)]
    for number in range(count):
        text = texts[number % len(texts)]
        (folder / f"document-{number:03}.txt").write_text(text[: 400 + 37 * number])
    return folder


class Laptop:
    """One `perdure run` of the documents workflow: its process, its folder, its output."""

    def __init__(self, root: Path, *, name: str = "documents", lease: int = 10, **given: Any) -> None:
        self.folder = root
        self.name = name
        self.runs = root / "runs"
        self.output = root / "output"
        self.manifest = root / "run.yaml"
        root.mkdir(parents=True, exist_ok=True)
        fields = json.dumps({"output": str(self.output), **given})
        self.manifest.write_text(MANIFEST.format(name=name, lease=lease, input=fields))
        self.process: subprocess.Popen[str] | None = None
        self.killed: list[int] = []

    def start(self, *options: str, stderr: int | IO[str] = subprocess.STDOUT) -> Laptop:
        command = [sys.executable, "-m", "perdure.cli.main", "run", str(self.manifest)]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder), *options],
            cwd=DOCUMENTS,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        return self

    def finish(self, timeout: float = 300) -> tuple[int, str]:
        """The exit status and all that was printed."""
        assert self.process is not None
        try:
            out, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.close()
            raise
        return self.process.returncode, out

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def runs_still(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # --- what it did ------------------------------------------------------------------------------------

    @property
    def home(self) -> Path:
        return self.runs / self.name

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "run.json").read_text())["status"]
        return found

    def runner(self) -> int | None:
        """The pid of the newest runner that was started."""
        try:
            return int(json.loads((self.home / "runner.json").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return None

    def kill_runner(self) -> None:
        """kill -9 to all of the newest runner."""
        pid = self.runner()
        assert pid is not None, "no runner was started"
        self.killed.append(pid)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
            os.killpg(pid, signal.SIGKILL)

    def has_acquired(self) -> bool:
        """Whether the newest runner has taken the run."""
        note, log = self.home / "runner.json", self.home / "runner.log"
        if not (note.exists() and log.exists()):
            return False
        epoch = json.loads(note.read_text())["epoch"]
        return any(
            line.get("message") == "acquired" and line["epoch"] == epoch
            for line in _json_lines(log.read_text())
        )

    def conversions_log(self) -> list[str]:
        """What the workflow noted: each conversion, and each one that it had recorded."""
        log = self.output / "conversions.log"
        return log.read_text().splitlines() if log.exists() else []

    def conversions(self) -> tuple[Counter[str], list[str]]:
        """How often each document was converted, and those that were converted after they were recorded."""
        converted: Counter[str] = Counter()
        recorded: set[str] = set()
        again: list[str] = []
        for line in self.conversions_log():
            what, _, name = line.partition(" ")
            if what == "recorded":
                recorded.add(name)
            else:
                converted[name] += 1
                if name in recorded:
                    again.append(name)
        return converted, again


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):  # a kill can cut a line, and faulthandler writes its own
            yield json.loads(line)


def until(holds: Any, seconds: float = 60.0, what: str = "it") -> None:
    """Wait until `holds()`; fail when it doesn't come to."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, f"{what} didn't come to hold in {seconds} s"
        time.sleep(0.02)
