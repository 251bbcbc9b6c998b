"""Where a command writes to; what becomes of it when nobody reads that any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import rich.console


class Console(rich.console.Console):
    """As rich's, but a reader that left (`| head`) is told to `when_closed`, once, and ends nothing by itself."""

    when_closed: Callable[[], None] = staticmethod(lambda: None)

    def on_broken_pipe(self) -> None:
        if self.quiet:
            return
        self.quiet = True
        # What is in the buffers still would fail again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self.when_closed()
