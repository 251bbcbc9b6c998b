"""Rounds: the sides of a benchmark sampled in turn, and what their figures come to."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.benchmark import Benchmark, Goal


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the two quartiles of some samples."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        return cls(*statistics.quantiles(samples, n=4, method="inclusive"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, the ratio (or the figure) that it is judged by, and whether it is met."""

    goal: Goal
    spread: Spread

    @property
    def reached(self) -> float:
        return self.spread.upper if self.goal.upper else self.spread.median

    @property
    def met(self) -> bool:
        return self.reached <= self.goal.at_most


@dataclass(frozen=True, slots=True)
class Outcome:
    """A benchmark's samples, round by round for each side."""

    benchmark: Benchmark
    samples: dict[str, list[float]]

    def spread(self, side: str) -> Spread:
        return Spread.of(self.samples[side])

    @property
    def verdicts(self) -> list[Verdict]:
        return [Verdict(goal, self._judged(goal)) for goal in self.benchmark.goals]

    def _judged(self, goal: Goal) -> Spread:
        taken = self.samples[goal.side]
        if goal.less is not None:
            taken = [a - b for a, b in zip(taken, self.samples[goal.less], strict=True)]
        if goal.beside is None:
            return Spread.of(taken)
        # Within a round, not between the medians: then what slowed a round down slowed both.
        return Spread.of([a / b for a, b in zip(taken, self.samples[goal.beside], strict=True)])


def measure(benchmark: Benchmark, rounds: int) -> Outcome:
    """One round to warm up, which isn't counted, then `rounds` of them, or as many as the benchmark allows."""
    rounds = min(rounds, benchmark.rounds or rounds)
    samples: dict[str, list[float]] = {side: [] for side in benchmark.sides}
    order = list(benchmark.sides)
    with benchmark.around():
        for number in range(rounds + 1):
            for side in order:
                gc.collect()
                sample = benchmark.sides[side]()
                if number:
                    samples[side].append(sample)
            order.reverse()
    return Outcome(benchmark, samples)
