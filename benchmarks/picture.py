"""The outcomes as a picture: for each benchmark a bar a side, with its quartiles, and what became of its goals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from benchmarks.rounds import Outcome
from benchmarks.table import goal_text, number, reached_text

OURS_COLOUR, OTHER_COLOUR = "#2b6cb0", "#a0aec0"
GOOD, BAD = "#276749", "#c53030"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "perdure"  # the same figures are the same file
    mpl.rcParams["svg.fonttype"] = "none"  # letters stay letters
    from matplotlib import pyplot

    heights = [len(o.samples) * 0.34 + len(o.benchmark.goals) * 0.2 + 0.75 for o in outcomes]
    figure, axes = pyplot.subplots(
        len(outcomes),
        1,
        figsize=(8, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, outcome in zip(axes[:, 0], outcomes, strict=True):
        _bars(axis, outcome)
    kind, packages = machine(), versions()
    figure.text(
        0.01, -0.01,
        f"{kind['cpu']}, {kind['cores']} cores, {kind['system']}, Python {kind['python']}; "
        f"workflows is llama-index-workflows {packages['llama-index-workflows']}",
        fontsize=7, color="#4a5568", va="top",
    )  # fmt: skip
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def _bars(axis: Any, outcome: Outcome) -> None:
    benchmark = outcome.benchmark
    sides = list(outcome.samples)
    spreads = [outcome.spread(side) for side in sides]
    ours = {goal.side for goal in benchmark.goals}
    axis.barh(
        range(len(sides)),
        [s.median for s in spreads],
        xerr=([s.median - s.lower for s in spreads], [s.upper - s.median for s in spreads]),
        color=[OURS_COLOUR if side in ours else OTHER_COLOUR for side in sides],
        error_kw={"elinewidth": 0.8, "capsize": 2},
        height=0.7,
    )
    axis.set_yticks(range(len(sides)), sides, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.14)
    for place, spread in enumerate(spreads):
        axis.annotate(number(spread.median), (spread.upper, place), (4, 0), textcoords="offset points",
                      va="center", fontsize=8)  # fmt: skip
    axis.set_title(f"{benchmark.title}: {benchmark.unit}", fontsize=9, loc="left")
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    for index, verdict in enumerate(outcome.verdicts):
        axis.annotate(
            f"{goal_text(verdict.goal, benchmark.unit)}: {reached_text(verdict)}, {'met' if verdict.met else 'missed'}",
            (0, 0), (0, -22 - 12 * index), xycoords="axes fraction", textcoords="offset points",
            fontsize=8, color=GOOD if verdict.met else BAD, va="top",
        )  # fmt: skip
