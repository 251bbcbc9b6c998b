"""What a user got wrong, told in a sentence and never as a Python traceback."""

from __future__ import annotations

from perdure.errors import PerdureError


class UsageError(PerdureError):
    """The command can't be carried out as it was given; exit status 2."""
