"""`perdure run` as a person meets it: mistakes, interruptions, a Redis that goes away. Real processes."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.laptop import Laptop, some_documents, until
from redis_server import RedisServer, free_port

COUNT = 60

FLOWS = """
from typing import Annotated
from pydantic import Field
from perdure import Context, Workflow, step
from perdure.events import HumanResponseEvent, StartEvent, StopEvent

class Begin(StartEvent):
    count: Annotated[int, Field(ge=1)] = 1

class Fine(Workflow):
    @step
    async def only(self, ev: Begin) -> StopEvent:
        print("a line that the workflow prints")
        return StopEvent(result={"count": ev.count})

class Raises(Workflow):
    @step
    async def explode(self, ev: Begin) -> StopEvent:
        raise LookupError("no such thing")

class Exits(Workflow):
    @step
    async def leave(self, ev: Begin) -> StopEvent:
        raise SystemExit(0)

class Asks(Workflow):
    @step
    async def ask(self, ctx: Context, ev: Begin) -> StopEvent:
        print("asking", flush=True)
        answer = await ctx.wait_for_event(HumanResponseEvent)
        return StopEvent(result={"said": answer.said})

class NotOne: ...
"""


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    docs = some_documents(tmp_path / "docs", COUNT)
    made = Laptop(tmp_path / "it", folder=str(docs), limit=COUNT, delay=0.2)
    yield made
    made.close()


def perdure(tmp_path: Path, command: str, *arguments: str) -> tuple[int, str]:
    (tmp_path / "flows.py").write_text(FLOWS)
    told = subprocess.run(
        [sys.executable, "-m", "perdure.cli.main", command, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return told.returncode, told.stdout


def test_a_run_of_a_file_prints_its_lines_and_its_result(tmp_path: Path) -> None:
    status, printed = perdure(tmp_path, "run", "flows.py:Fine", "--input", '{"count": 7}')
    assert status == 0, printed
    assert "a line that the workflow prints" in printed
    assert '"count": 7' in printed
    assert "steps committed  1" in " ".join(printed.split(" "))


@pytest.mark.parametrize(
    ("arguments", "expected", "told"),
    [
        (["nowhere:Flow"], 2, "no module 'nowhere'"),
        (["flows.py:NotOne"], 2, "the class flows.NotOne, not a Workflow class"),
        (["flows.py:Fines"], 2, "did you mean Fine?"),
        (["flows.py:Fine", "--input", '{"count": 0}'], 2, "greater than or equal to 1"),
        (["flows.py:Raises"], 1, "LookupError: no such thing"),
        (["flows.py:Exits"], 1, "StepFailed in step leave"),
    ],
)
def test_what_can_not_work_says_why(tmp_path: Path, arguments: list[str], expected: int, told: str) -> None:
    status, printed = perdure(tmp_path, "run", *arguments)
    assert told in printed
    assert status == expected, printed
    if expected == 2:
        assert "Traceback" not in printed


def test_an_event_that_is_sent_from_another_shell_is_the_answer_a_run_waits_for(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    running = subprocess.Popen(
        [sys.executable, "-m", "perdure.cli.main", "run", "flows.py:Asks", "--name", "asks"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("asking"):
                break
        answer = ("asks", "HumanResponseEvent", '{"said": "yes"}', "--id", "answer-1")
        assert perdure(tmp_path, "send", *answer)[0] == 0
        status, told = perdure(tmp_path, "send", *answer)
        assert (status, "had taken the event answer-1 before" in told) == (0, True), told
        printed, _ = running.communicate(timeout=60)
        assert running.returncode == 0, printed
        assert '"said": "yes"' in printed
    finally:
        running.kill()
        running.wait()
    status, told = perdure(tmp_path, "send", *answer)
    assert (status, "had taken the event answer-1 before" in told) == (0, True), told
    status, told = perdure(tmp_path, "send", *answer[:2])
    assert (status, told) == (2, "Error: run 'asks' has ended (Completed) and takes no events\n")


def test_a_redis_that_does_not_answer_is_told_soon(tmp_path: Path) -> None:
    began = time.monotonic()
    status, printed = perdure(
        tmp_path, "run", "flows.py:Fine", "--redis", f"redis://:secret@127.0.0.1:{free_port()}/0"
    )
    assert status == 2
    assert "doesn't answer" in printed
    assert "secret" not in printed
    assert "Traceback" not in printed
    assert time.monotonic() - began < 40


def test_a_wrong_password_is_told_at_once(tmp_path: Path) -> None:
    with RedisServer(requirepass="right") as server:
        status, printed = perdure(
            tmp_path, "run", "flows.py:Fine", "--redis", f"redis://:wrong@127.0.0.1:{server.port}/0"
        )
        assert status == 2
        assert "refuses the user name or password" in printed
        assert "wrong@" not in printed
        assert "Traceback" not in printed


def test_ctrl_c_leaves_a_run_that_the_same_command_resumes(laptop: Laptop) -> None:
    laptop.start()
    until(lambda: sum(laptop.conversions()[0].values()) > 24, what="work")
    assert laptop.process is not None
    laptop.process.send_signal(signal.SIGINT)
    status, printed = laptop.finish(60)
    assert status == 130
    assert "Interrupted: the same command resumes it." in printed
    assert "Traceback" not in printed
    assert laptop.runner() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(laptop.runner() or 0, 0)
    done = sum(laptop.conversions()[0].values())
    assert done < COUNT
    recorded = sum(line.startswith("recorded") for line in laptop.conversions_log())
    assert recorded > 16
    noted = laptop.status()["progress"]["completedSteps"]
    assert noted >= recorded - 8, "what `perdure list` tells of it is its end, not some seconds before"
    status, printed = laptop.start().finish()
    assert status == 0, printed
    assert "Resuming run 'documents'" in printed
    converted, again = laptop.conversions()
    assert not again
    assert len(converted) == COUNT
    assert laptop.status()["attempt"] == 2


def test_a_reader_that_leaves_interrupts_a_run_as_ctrl_c_does(laptop: Laptop, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        laptop.start(stderr=file)
    assert laptop.process is not None and laptop.process.stdout is not None
    assert laptop.process.stdout.readline()
    laptop.process.stdout.close()
    assert laptop.process.wait(120) == 141
    assert sum(laptop.conversions()[0].values()) < COUNT
    assert errors.read_text() == ""
    status, printed = laptop.start().finish()
    assert status == 0, printed
    converted, again = laptop.conversions()
    assert (len(converted), again) == (COUNT, [])


def test_after_the_end_the_same_command_starts_a_new_run(tmp_path: Path) -> None:
    assert perdure(tmp_path, "run", "flows.py:Fine")[0] == 0
    status, printed = perdure(tmp_path, "run", "flows.py:Fine", "--input", '{"count": 3}')
    assert status == 0
    assert '"count": 3' in printed
    assert "Resuming" not in printed


def test_two_at_once_are_one_too_many(laptop: Laptop) -> None:
    laptop.start()
    until(lambda: laptop.runner() is not None, what="a runner")
    assert laptop.process is not None
    second = Laptop(laptop.folder, folder="x").start()
    status, printed = second.finish(60)
    assert status == 2
    assert f"run 'documents' is already being run by process {laptop.process.pid}" in printed
    assert laptop.runs_still


def test_a_supervisor_that_was_killed_takes_its_runner_along_and_the_next_resumes(laptop: Laptop) -> None:
    laptop.start()
    until(lambda: sum(laptop.conversions()[0].values()) > 8, what="work")
    runner = laptop.runner()
    laptop.close()
    assert runner is not None
    until(lambda: not _alive(runner), what="the runner's end")
    status, printed = laptop.start().finish()
    assert status == 0, printed
    converted, again = laptop.conversions()
    assert not again
    assert len(converted) == COUNT


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seconds", [6, 60])
def test_a_redis_that_goes_away_in_the_middle_is_waited_for(laptop: Laptop, seconds: int) -> None:
    with RedisServer() as server:
        laptop.start("--redis", server.url)
        until(lambda: sum(laptop.conversions()[0].values()) > 8, what="work")
        server.kill()
        time.sleep(seconds)
        assert laptop.runs_still
        server.start()
        status, printed = laptop.finish()
        assert status == 0, printed
        converted, again = laptop.conversions()
        assert not again
        assert len(converted) == COUNT
        assert laptop.status()["attempt"] <= 2


def test_an_encrypted_run_is_not_taken_up_without_its_keys_and_not_ended_for_that(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "run.yaml").write_text(
        "apiVersion: perdure.dev/v1alpha1\nkind: WorkflowRun\nmetadata: {name: sealed}\nspec:\n"
        "  workflow: {entrypoint: 'flows:Asks'}\n"
        "  checkpoint: {compression: Zstd, encryptionKeysRef: {name: of-the-cluster}}\n"
    )
    command = [sys.executable, "-m", "perdure.cli.main", "run", "run.yaml"]
    keys = {**os.environ, "PERDURE_ENCRYPTION_KEYS": "k:" + base64.b64encode(b"A" * 32).decode()}
    running = subprocess.Popen(command, cwd=tmp_path, env=keys, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("asking"):
            break
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    status, told = perdure(tmp_path, "run", "run.yaml")
    assert status == 2 and "PERDURE_ENCRYPTION_KEYS, which is empty" in told
    assert perdure(tmp_path, "send", "sealed", "HumanResponseEvent", '{"said": "yes"}')[0] == 0
    resumed = subprocess.run(
        command, cwd=tmp_path, env=keys, capture_output=True, text=True, timeout=120, check=False
    )
    assert resumed.returncode == 0, resumed.stdout
    assert '"said": "yes"' in resumed.stdout
