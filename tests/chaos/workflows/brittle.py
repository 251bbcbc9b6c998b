"""A module whose import needs something that isn't always there."""

import os

from habits import Counts

if os.environ.get("BRITTLE"):
    raise ConnectionError("the database is away")

__all__ = ["Counts"]
