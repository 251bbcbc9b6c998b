"""What goes wrong around a run on a laptop, for its user to mend."""

from __future__ import annotations

from perdure.errors import PerdureError


class LocalError(PerdureError):
    """The run can't be started on this machine; the message says what to do."""


class NoRedisError(LocalError):
    """There is no Redis server to embed, or it doesn't start."""


class AlreadyRunningError(LocalError):
    """Another process of this machine runs the run of that name."""
