"""What is kept of a step's exception: text that any log takes, and the step's own part of the traceback."""

from __future__ import annotations

import traceback
from types import TracebackType

from perdure.engine.model import Failure

MAX_CHARS = 8000  # of a traceback, and of a message


def failure_of(error: BaseException) -> Failure:
    kind = type(error)
    text = "".join(traceback.format_exception(kind, error, _of_the_step(error)))
    return Failure(
        type=f"{kind.__module__}.{kind.__qualname__}", message=_cut(message_of(error)), traceback=_cut(text)
    )


def message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<{type(error).__name__}.__str__ raised {type(broken).__name__}>"


def _of_the_step(error: BaseException) -> TracebackType | None:
    """The traceback from the step's own code on: what leads there tells its author nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("perdure."):
        trace = trace.tb_next
    return trace or error.__traceback__


def _cut(text: str) -> str:
    """At most MAX_CHARS: the beginning, and the end."""
    # A message may hold what is no text, as the names of files do; a record can't.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_CHARS:
        return text
    mark = "\n[...]\n"
    half = (MAX_CHARS - len(mark)) // 2
    return text[:half] + mark + text[-half:]
