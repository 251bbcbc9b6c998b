"""Every example of the pages runs as it stands there, and prints what stands under it."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
import uuid
from collections.abc import Iterator

import pytest
from pages import PAGES, examples_of


def examples() -> Iterator[object]:
    for page in PAGES:
        for found in examples_of(page):
            heading = re.findall(r"^## (.*)$", found.string[: found.start()], re.MULTILINE)[-1]
            yield pytest.param(found["code"], found["printed"], id=f"{page}: {heading}")


@pytest.mark.parametrize(("code", "printed"), list(examples()))
def test_an_example_prints_what_stands_under_it(code: str, printed: str, redis_url: str) -> None:
    # A module of its own, as a file would be: annotations are looked up there.
    module = types.ModuleType(f"example_{uuid.uuid4().hex}")
    module.__dict__["REDIS_URL"] = redis_url
    sys.modules[module.__name__] = module
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(code, "an example", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    assert out.getvalue() == printed
