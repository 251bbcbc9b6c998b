"""How a runner ends: exit codes, which are hints, and the termination message that goes with them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from perdure.control.outcome import Termination, encode_termination

FINISHED = 0
RELEASED = 75  # the store's `released` says why
FENCED = 76  # the run is another's, or the lease could not be kept
HOPELESS = 77  # can't ever work: the reason is in the termination message


def leave_words(path: str, words: Termination) -> None:
    """Write the termination message where the kubelet, or the laptop's supervisor, reads it."""
    if not path:
        return
    try:
        Path(path).write_text(encode_termination(words))
    except OSError as error:
        # Outside a pod there may be no such file. The exit code and the store say enough.
        print(f"perdure-runner: no termination message at {path}: {error}", file=sys.stderr)


def leave(code: int) -> NoReturn:
    """End this process now: threads of steps that can't be cancelled must not hold it."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe has nobody to tell
            stream.flush()
    os._exit(code)
