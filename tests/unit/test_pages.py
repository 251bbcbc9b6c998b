"""The pages say what is so: each test and page that they name is there, each reason is one that can be given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perdure.cli.main import app
from perdure.store import durability

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = (ROOT / "docs/durability.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_test_and_page_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    missing = [
        f"{file}::{test}"
        for file, test in re.findall(r"`(tests/[a-z_/]+\.py)::(\w+)`", text)
        if not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    missing += [
        target
        for target in re.findall(r"\]\(([^)#: ]+\.md)(?:#[^)]*)?\)", text)
        if not (page.parent / target).exists()
    ]
    assert missing == []


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
