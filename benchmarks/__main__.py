"""`python -m benchmarks`: measures, shows the table, writes docs/benchmarks/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import picture, results, table
from benchmarks.rounds import measure
from benchmarks.suite import BENCHMARKS

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(BENCHMARKS)}; may be given again. Written only with --output."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side is sampled.")] = 11,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where results.json and results.svg go; without --only it is docs/benchmarks. What isn't measured now "
            "and stands there from a machine and versions like these, is kept."
        ),
    ] = None,
) -> None:
    """Measure Perdure beside what it is compared with. Exits with 1 when a goal is missed."""
    unknown = [name for name in only or () if name not in BENCHMARKS]
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: no such benchmark; there are {', '.join(BENCHMARKS)}"
        )
    console = Console()
    console.width = max(console.width, 120)  # below it the table can't be read
    outcomes = []
    with console.status("") as status:
        for name, benchmark in BENCHMARKS.items():
            if only and name not in only:
                continue
            status.update(benchmark.title)
            outcomes.append(measure(benchmark, rounds))
    table.show(outcomes, console)
    folder = output or (None if only else DOCS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        known = results.read(folder / "results.json", BENCHMARKS)
        known |= {outcome.benchmark.name: outcome for outcome in outcomes}
        all_outcomes = [known[name] for name in BENCHMARKS if name in known]
        results.write(all_outcomes, folder / "results.json")
        picture.draw(all_outcomes, folder / "results.svg")
        console.print(f"written to {folder}/results.json and results.svg")
    if not all(verdict.met for outcome in outcomes for verdict in outcome.verdicts):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
