"""What the steps under test noted of what they did: a time (monotonic, in seconds), a word, what it is about."""

from __future__ import annotations

from pathlib import Path

from chaos.laptop import until


def noted_at(notes: Path, what: str) -> list[tuple[float, str]]:
    """What was noted behind that word and when, in its order."""
    lines = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    return [(float(line[0]), " ".join(line[2:])) for line in lines if line[1] == what]


def noted(notes: Path, what: str) -> list[str]:
    """What was noted behind that word, in its order."""
    return [text for _, text in noted_at(notes, what)]


def until_stored(notes: Path, count: int) -> None:
    until(lambda: len(noted(notes, "stored")) >= count, what=f"{count} writes")
