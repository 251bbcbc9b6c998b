"""Rows of text: aligned for people, separated by tabs for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Nothing is cut: a terminal that is too narrow breaks its lines, and what is broken can still be read."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            typer.echo("\t".join(row))
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        cells = [
            text.rjust(width) if name in numbers else text.ljust(width)
            for name, text, width in zip(columns, row, widths, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())
