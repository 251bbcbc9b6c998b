"""docs/durability.md says what is so: each test that it names is there, each reason is one that can be given."""

from __future__ import annotations

import re
from pathlib import Path

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
