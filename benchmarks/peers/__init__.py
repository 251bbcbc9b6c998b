"""Other engines for durable workflows, each installed outside of the repository and of its environment.

`python -m benchmarks.peers` installs them; what isn't there isn't measured.
"""

from __future__ import annotations

import os
from pathlib import Path

PYTHON_PACKAGES = ("restate-sdk==1.3.0", "hypercorn", "llama-agents-dbos==0.7.0", "dbos==2.31.1")
NODE_PACKAGES = ("@restatedev/restate-server@1.7.12",)

SCRIPTS = Path(__file__).parent


def home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "perdure-benchmarks"


def python() -> Path | None:
    """The interpreter that has the peers' packages."""
    found = home() / "venv" / "bin" / "python"
    return found if found.exists() else None


def restate_server() -> Path | None:
    return next((home() / "node_modules" / "@restatedev").glob("restate-server-*/bin/restate-server"), None)
