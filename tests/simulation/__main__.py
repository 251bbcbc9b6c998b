"""Plays one seed of the simulation again and tells what happened: python -m simulation SEED."""

from __future__ import annotations

import sys
import traceback

from simulation.world import simulate


def main(seed: int) -> int:
    broken: Exception | None = None
    try:
        world = simulate(seed)
    except Exception as error:
        broken, world = error, error.world  # type: ignore[attr-defined]
        traceback.print_exception(error)
    print("\n".join(world.trace))
    print(f"seed {seed}: {type(world._workflow).__name__} {world.plan}: {broken or 'holds'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
