"""The examples of the documentation's pages."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n```text\n(?P<printed>.*?)```", re.DOTALL)
PAGES = ["authoring.md"]


def examples_of(page: str) -> list[re.Match[str]]:
    """The page's examples: their code, and what they print."""
    text = (ROOT / "docs" / page).read_text()
    found = list(EXAMPLE.finditer(text))
    assert text.count("```python") == len(found), f"{page} has an example that nothing checks"
    return found
