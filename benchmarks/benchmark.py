"""A benchmark: what is measured, on which sides, and what it shall come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """`side` shall take at most `at_most` times what `beside` takes; in the benchmark's unit without `beside`.

    less: a side that is taken off `side` first: what remains is what is judged.
    upper: judged by the upper quartile of the rounds instead of their median.
    """

    side: str
    at_most: float
    beside: str | None = None
    upper: bool = False
    less: str | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row of the table.

    unit: of a sample, as it is shown: "µs a step", "KB a workflow".
    sides: by name, what takes one sample, in `unit`. A side that may not be there here (a store that
    isn't installed) is left out by the module.
    rounds: at most so many, where a sample takes long.
    around: entered once before the rounds, such as a server that the sides talk to.
    """

    name: str
    title: str
    unit: str
    sides: Mapping[str, Callable[[], float]]
    goals: Sequence[Goal] = ()
    rounds: int | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
