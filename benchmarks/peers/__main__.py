"""`python -m benchmarks.peers`: installs what Perdure is compared with into the user's cache."""

from __future__ import annotations

import subprocess
import sys
import venv

from benchmarks import peers


def main() -> None:
    folder = peers.home()
    folder.mkdir(parents=True, exist_ok=True)
    if peers.python() is None:
        venv.create(folder / "venv", with_pip=True)
    subprocess.run([str(peers.python()), "-m", "pip", "install", "-q", *peers.PYTHON_PACKAGES], check=True)
    subprocess.run(
        ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", *peers.NODE_PACKAGES],
        check=True,
    )
    sys.stdout.write(f"installed in {folder}\n")


if __name__ == "__main__":
    main()
