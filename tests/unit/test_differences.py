"""Each claim of docs/differences.md names a test, and that test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE_ROW = re.compile(r"^\| (?!Perdure|---)(.*) \|$", re.MULTILINE)
TEST = re.compile(r"`([a-z]+/\w+\.py)::(\w+)`")


def test_every_difference_names_a_test_that_is_there() -> None:
    rows = TABLE_ROW.findall((ROOT / "docs" / "differences.md").read_text())
    assert len(rows) > 20
    for row in rows:
        named = TEST.findall(row)
        assert named, f"nothing holds this claim: {row}"
        for file, test in named:
            tree = ast.parse((ROOT / "tests" / file).read_text())
            functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            coroutines = {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
            assert test in functions | coroutines, f"{file} has no {test}: {row}"
