"""A sample taken in a process of its own: for what a process has only once, such as its imports."""

from __future__ import annotations

import subprocess
import sys


def number_from(*arguments: str) -> float:
    """The number that `python ARGUMENTS` prints last."""
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stderr}")
    return float(ended.stdout.split()[-1])
