"""The runner's parent: passes signals on, reaps, and reads how its child ended. Real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perdure.runner.settings import RunnerSettings

# The engine's place is taken by a line of Python; all around it is the real thing.
STARTER = """
import sys, types
child = types.ModuleType("perdure.runner.child")
exec(compile("def run(settings):\\n" + sys.argv[1], "body", "exec"), child.__dict__)
sys.modules["perdure.runner.child"] = child
from perdure.runner.main import main
main()
"""


def start(body: str, words: Path) -> subprocess.Popen[str]:
    settings = RunnerSettings(
        namespace="local", run="r", uid="u", epoch=3, holder="h", entrypoint="m:W", redis_url="redis://x",
        termination_log=str(words),
    )  # fmt: skip
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, indented],
        env={**os.environ, **settings.to_env()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("code", [0, 75, 76, 77, 1])
def test_the_childs_exit_code_is_the_runners(tmp_path: Path, code: int) -> None:
    assert start(f"return {code}", tmp_path / "words").wait(20) == code


def test_a_child_killed_by_its_timer_ends_as_76_and_says_so(tmp_path: Path) -> None:
    body = "from perdure.runner.timer import KernelTimer\nKernelTimer(1.0).arm(0.05)\nwhile True: pass"
    runner = start(body, tmp_path / "words")
    _, err = runner.communicate(timeout=20)
    assert runner.returncode == 76
    words = json.loads((tmp_path / "words").read_text())
    assert (words["epoch"], words["reason"]) == (3, "LeaseLost")
    assert "lease expired: killed by the kernel timer" in err
    assert '"run": "r"' in err


def test_any_other_signal_is_a_crash(tmp_path: Path) -> None:
    runner = start("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path / "words")
    assert runner.wait(20) == 137
    assert not (tmp_path / "words").exists()


def test_an_exception_in_the_child_is_a_crash_with_its_traceback(tmp_path: Path) -> None:
    runner = start("raise RuntimeError('broken engine')", tmp_path / "words")
    _, err = runner.communicate(timeout=20)
    assert runner.returncode == 1
    assert "broken engine" in err


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_before_the_child_handles_it_waits(tmp_path: Path, sig: signal.Signals) -> None:
    body = """
import signal, time
print("up", flush=True)
time.sleep(0.3)
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
for _ in range(100):
    if got: return 75
    time.sleep(0.05)
return 1
"""
    runner = start(body.strip(), tmp_path / "words")
    assert runner.stdout is not None
    assert runner.stdout.readline() == "up\n"
    runner.send_signal(sig)
    assert runner.wait(20) == 75


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere a thread looks once a second")
    runner = start("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)", tmp_path / "words")
    assert runner.stdout is not None
    child = int(runner.stdout.readline())
    runner.kill()
    runner.wait()
    give_up = time.monotonic() + 10
    while _runs(child):
        assert time.monotonic() < give_up, "the child outlived its parent"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_orphans_of_steps_are_reaped(tmp_path: Path) -> None:
    body = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
time.sleep(0.3)
return 0
"""
    assert start(body.strip(), tmp_path / "words").wait(20) == 0


def test_settings_that_are_missing_are_named() -> None:
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE_")}
    told = subprocess.run(
        [sys.executable, "-m", "perdure.runner.main"],
        env=bare,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert told.returncode == 77
    assert "PERDURE_ENTRYPOINT: Field required" in told.stderr
    assert "Traceback" not in told.stderr


def test_settings_show_no_secret() -> None:
    secrets = {"redis_url": "redis://:s3cret@there", "encryption_keys": "k:s3cret"}
    settings = RunnerSettings(
        namespace="local", run="r", uid="u", epoch=3, holder="h", entrypoint="m:W", **secrets
    )
    with pytest.raises(ValueError, match="uid") as caught:
        RunnerSettings.model_validate(secrets)
    assert "s3cret" not in repr(settings) + str(caught.value)
