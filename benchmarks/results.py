"""The outcomes as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from benchmarks.rounds import Outcome


def write(outcomes: Sequence[Outcome], path: Path) -> None:
    document = {
        "machine": machine(),
        "versions": versions(),
        "benchmarks": {outcome.benchmark.name: _row(outcome) for outcome in outcomes},
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "title": outcome.benchmark.title,
        "unit": outcome.benchmark.unit,
        "sides": {
            side: {**_rounded(asdict(outcome.spread(side))), "samples": [_digits(s) for s in samples]}
            for side, samples in outcome.samples.items()
        },
        "goals": [
            {**_rounded(asdict(v.goal)), "reached": _rounded(asdict(v.spread)), "met": v.met}
            for v in outcome.verdicts
        ],
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: _digits(f) if isinstance(f, float) else f for name, f in figures.items()}


def _digits(figure: float) -> float:
    return float(f"{figure:.4g}")
