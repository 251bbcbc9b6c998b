"""Steps that aren't async: each runs in a thread, which nobody can cancel."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

from perdure.engine.invocation import Invocation

log = logging.getLogger("perdure.engine")


class Threads:
    """The threads that run steps of one run, by their names."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: dict[str, str] = {}

    async def run(self, invocation: Invocation, function: Callable[[], Any]) -> Any:
        """What `function`, the step of `invocation`, returns; contextvars go with it."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            None, lambda: self._run(invocation, lambda: context.run(function))
        )

    def _run(self, invocation: Invocation, function: Callable[[], Any]) -> Any:
        step, name = invocation.work.step, threading.current_thread().name
        self._steps[name] = step
        try:
            returned = function()
        except StopIteration as error:  # no future takes it, and who awaits that would wait for ever
            raise RuntimeError(f"step {step} raised StopIteration") from error
        finally:
            del self._steps[name]
            if invocation.closed:
                log.warning(
                    "step %s ended in its thread after it was given up: what came of it is dropped", step
                )
        return returned

    def __str__(self) -> str:
        return ", ".join(f"{name} (step {step})" for name, step in self._steps.copy().items())
