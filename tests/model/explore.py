"""Visits every state that can be reached within bounds, the nearest first, each once.

States are known again by a hash of 64 bits: two of a million states share one in 1 of 37 million explorations.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from model.world import Bounds, Broken, World


class Found(NamedTuple):
    """states, transitions: how many were visited. broken: the promise that is; trace: what led to it."""

    states: int
    transitions: int
    broken: str | None
    trace: list[str]


def explore(bounds: Bounds) -> Found:
    """All that can happen within `bounds`, up to the first promise that is broken."""
    world = World(bounds)
    first = world.first()
    # For each state what led to it, and from where.
    parents: dict[int, tuple[int, str]] = {hash(first): (0, "")}
    queue = deque([first])
    transitions = 0
    while queue:
        state = queue.popleft()
        number = hash(state)
        label = ""
        following = world.next(state)
        try:
            for label, after in following:
                transitions += 1
                key = hash(after)
                if key not in parents:
                    parents[key] = (number, label)
                    world.check(after)
                    queue.append(after)
        except Broken as broken:
            trace = _trace(parents, number)
            return Found(len(parents), transitions, str(broken), [*trace, f"and then: {broken}"])
    return Found(len(parents), transitions, None, [])


def _trace(parents: dict[int, tuple[int, str]], number: int) -> list[str]:
    labels = []
    while (parent := parents[number]) != (0, ""):
        number, label = parent
        labels.append(label)
    return labels[::-1]
