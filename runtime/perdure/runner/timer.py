"""The kernel's timer behind the lease: it needs neither the GIL nor a thread of Python."""

from __future__ import annotations

import faulthandler
import signal

DUMP_PART = 0.95  # of the TTL: late enough to mean it, early enough to be written


class KernelTimer:
    """Kills this process by SIGALRM at its deadline. Make it in the main thread, before others start.

    SIGALRM keeps its default action, so the kernel acts by itself: also while a C extension holds
    the GIL, and before any statement runs after a freeze (SIGSTOP, a paused node). The kernel
    doesn't do that to PID 1 of a container, which is why the engine runs in a child.
    """

    def __init__(self, ttl: float) -> None:
        self._dump_before = ttl * (1 - DUMP_PART)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    def arm(self, seconds: float) -> None:
        # setitimer takes 0 for "off", and a deadline that has passed must end the process.
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
        faulthandler.dump_traceback_later(max(seconds - self._dump_before, 0.001))

    def disarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
