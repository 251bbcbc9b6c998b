"""`perdure-runner`: the parent is init and reads how its child, the engine, ended.

The two are processes because the kernel never kills PID 1 of a container by a timer, and the timer
is what ends a runner that holds the GIL or was frozen past its lease.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from pydantic import ValidationError

from perdure.control.outcome import Termination
from perdure.runner import exits
from perdure.runner.parentage import leash, watch_parent
from perdure.runner.settings import PREFIX, RunnerSettings

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HANDLED = {*_FORWARDED, signal.SIGCHLD}


def main() -> None:
    try:
        settings = RunnerSettings.from_env()
    except ValidationError as error:
        problems = "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        print(f"perdure-runner is started by Perdure, with its settings in the environment. {problems}",
              file=sys.stderr)  # fmt: skip
        raise SystemExit(exits.HOPELESS) from None
    raise SystemExit(supervise(settings))


def supervise(settings: RunnerSettings) -> int:
    """Fork the engine, pass signals on, reap whatever ends; return the exit code."""
    # As PID 1 a signal counts only if it is handled; blocked ones wait for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    for handled in _HANDLED:
        signal.signal(handled, lambda *_: None)
    parent, end_with_parent = os.getpid(), leash(signal.SIGKILL)
    child = os.fork()
    if child == 0:
        _run_child(settings, parent, end_with_parent)
    while True:
        sig = signal.sigwait(_HANDLED)
        if sig != signal.SIGCHLD:
            _forward(child)
            continue
        status = _reap(child)
        if status is not None:
            return _verdict(settings, status)


def _run_child(settings: RunnerSettings, parent: int, end_with_parent: Callable[[], None] | None) -> None:
    """Never returns: whatever happens here must not go on as a second parent."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on as SIGTERM
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # SIGTERM stays blocked until the engine has a handler for it: a drain that comes early waits.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED - {signal.SIGTERM})
        if end_with_parent is not None:
            end_with_parent()
        else:
            watch_parent(parent)
        from perdure.runner.child import run

        code = run(settings)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        exits.leave(code)


def _forward(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended: SIGCHLD is on its way
        os.kill(child, signal.SIGTERM)


def _reap(child: int) -> int | None:
    """Collect every process that ended; the child's wait status when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = status


def _verdict(settings: RunnerSettings, status: int) -> int:
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    sig = os.WTERMSIG(status)
    if sig != signal.SIGALRM:
        _say(settings, "error", f"the engine was killed by signal {sig} ({signal.Signals(sig).name})")
        return 128 + sig
    message = "lease expired: killed by the kernel timer"
    _say(settings, "error", message)
    exits.leave_words(
        settings.termination_log,
        Termination(epoch=settings.epoch, kind="fenced", reason="LeaseLost", message=message),
    )
    return exits.FENCED


def _say(settings: RunnerSettings, level: str, message: str) -> None:
    """A line as the child's logs have them; the parent stays without their machinery."""
    line = {
        "run": settings.run,
        "attempt": settings.attempt,
        "epoch": settings.epoch,
        "message": message,
        "level": level,
        "logger": "perdure.runner",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
