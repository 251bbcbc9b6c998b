"""The types that authors are promised: what mypy, strict, makes of their code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from pages import PAGES, examples_of

ROOT = Path(__file__).parents[2]
TYPED = Path(__file__).parent / "typed" / "authoring.py"
SAID = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+)(?::\d+)?: (?P<kind>error|note): (?P<text>.*)$")


def mypy(*arguments: str | Path) -> list[str]:
    """The lines that mypy says, as a user runs it: without this repository's own configuration."""
    command = [sys.executable, "-m", "mypy", "--config-file=", "--no-error-summary", *map(str, arguments)]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "runtime")}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    return ran.stdout.splitlines()


def test_types_are_revealed_and_errors_reported_as_the_comments_say() -> None:
    said: dict[int, list[str]] = defaultdict(list)
    for line in mypy("--strict", TYPED):
        found = SAID.match(line)
        if found is not None:
            said[int(found["line"])].append(f"{found['kind']}: {found['text']}")
    wrong = []
    for number, line in enumerate(TYPED.read_text().splitlines(), 1):
        revealed, error = re.search(r"# R: (.*)$", line), re.search(r"# E: (.*)$", line)
        if revealed is not None:
            right = said[number] == [f'note: Revealed type is "{revealed[1]}"']
        elif error is not None:
            right = len(said[number]) == 1 and said[number][0].startswith(f"error: {error[1]}")
        else:
            right = not said[number]
        if not right:
            wrong.append(f"{number}: {line.strip()}\n    mypy says {said[number]}")
    assert not wrong, "\n".join(wrong)


def test_the_examples_of_the_pages_type_check(tmp_path: Path) -> None:
    files = []
    for page in PAGES:
        for number, example in enumerate(examples_of(page)):
            file = tmp_path / f"{Path(page).stem}_{number}.py"
            file.write_text("REDIS_URL: str\n" + example["code"])
            files.append(file)
    assert mypy("--check-untyped-defs", *files) == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "runtime" / "perdure" / "py.typed").exists()
