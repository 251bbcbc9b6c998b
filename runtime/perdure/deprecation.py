"""What the origin's users still call and should not."""

from __future__ import annotations

import warnings


def deprecated(old: str, new: str) -> None:
    """Warn the caller of the function that calls this."""
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
