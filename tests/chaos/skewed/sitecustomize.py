"""On the path of a runner under test: its wall clock is off by PERDURE_TEST_CLOCK seconds, or jumps by an hour."""

import os
import time

_true = time.time
_by = os.environ.get("PERDURE_TEST_CLOCK", "0")


def _jumping() -> float:
    """An hour ahead in every second second."""
    now = _true()
    return now + 3600 * (int(now) % 2)


time.time = _jumping if _by == "jumps" else lambda: _true() + float(_by)
