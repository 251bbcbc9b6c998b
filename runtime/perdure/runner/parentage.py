"""Ending with one's parent: a runner without its init, or a Redis without its supervisor, is of no use."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def leash(sig: signal.Signals) -> Callable[[], None] | None:
    """For `preexec_fn` or after a fork: the child gets `sig` when this process dies.

    None where the system has no such thing.
    """
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec only calls that can't block may follow.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


def watch_parent(parent: int) -> None:
    """Where there is no leash: a thread looks once a second whether `parent` is still there."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="perdure-parent", daemon=True).start()
