"""docs/durability.md says what is so: each test that it names is there, each reason is one that can be given."""

from __future__ import annotations

import re
from pathlib import Path

from perdure.cli.main import app
from perdure.store import durability

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/durability.md").read_text()


def test_each_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 25
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_what_the_first_pages_link_to_is_there() -> None:
    for page in (ROOT / "README.md", ROOT / "docs/durability.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_the_readme_names_commands_that_are_there() -> None:
    named = set(re.findall(r"^perdure ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    there = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert named <= there
    assert len(named) >= 6


def test_each_row_of_what_survives_names_its_test() -> None:
    section = PAGE.split("## What survives what")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert [row for row in rows if "`tests/" not in row] == []


def test_the_reasons_are_those_of_the_code() -> None:
    source = Path(durability.__file__).read_text()
    given = set(re.findall(r'Doubt\(\s*"(\w+)"', source)) | {"EveryWriteSynced"}
    section = PAGE.split("| reason | status |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == given
