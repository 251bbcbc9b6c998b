"""The doorway of one run: its invocations pass the gate here, or wait until it opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.engine.gate import Gate
from perdure.engine.invocation import Invocation
from perdure.engine.model import Start


class Doorway:
    """Lives in the run's event loop; the `gate` itself is shared with threads and child workflows."""

    __slots__ = ("_gate", "_held", "_opened")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held: dict[int, Start] = {}  # by work
        self._opened: asyncio.Event | None = None

    def begin(self, invocation: Invocation, start: Start) -> bool:
        """Whether the step may begin now; if not, `start` is held for `opened`."""
        if not self._gate.enter():
            self._held[invocation.work.id] = start
            return False
        invocation.inside = True
        # It may be on its way out of there: an answer that comes meanwhile starts it as well.
        self._held.pop(invocation.work.id, None)
        return True

    def leave(self, invocation: Invocation) -> None:
        """The step's own code stops running, for good or to wait; nothing for one that isn't inside."""
        if invocation.inside:
            invocation.inside = False
            self._gate.leave()

    async def enter(self, invocation: Invocation) -> None:
        """Its own code goes on, once the gate is open."""
        while not self._gate.enter():
            if self._opened is None:
                self._opened = asyncio.Event()
            await self._opened.wait()
        invocation.inside = True

    def opened(self, carry_out: Callable[[Start], None]) -> None:
        """The gate is open: let in who waits, and `carry_out` what is held."""
        if self._opened is not None:
            self._opened.set()
            self._opened = None
        for number in list(self._held):
            if (start := self._held.pop(number, None)) is not None:
                carry_out(start)
