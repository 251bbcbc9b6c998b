"""The outcomes as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Benchmark
from benchmarks.machine import machine, versions
from benchmarks.rounds import Outcome


def write(outcomes: Sequence[Outcome], path: Path) -> None:
    document = {
        "machine": machine(),
        "versions": versions(),
        "benchmarks": {outcome.benchmark.name: _row(outcome) for outcome in outcomes},
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path, benchmarks: Mapping[str, Benchmark]) -> dict[str, Outcome]:
    """What `write` wrote, by name; nothing of another kind of machine, of other versions or other sides."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    if (document["machine"], document["versions"]) != (machine(), versions()):
        return {}
    found = {}
    for name, row in document["benchmarks"].items():
        samples = {side: figures["samples"] for side, figures in row["sides"].items()}
        if name in benchmarks and samples.keys() == benchmarks[name].sides.keys():
            found[name] = Outcome(benchmarks[name], samples)
    return found


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
