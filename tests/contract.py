"""The store contract's tests (tests/integration/test_store_contract.py), on whatever store a URL names."""

from __future__ import annotations

import inspect

from integration import test_store_contract


def check_contract(url: str) -> None:
    """All of them, one after the other."""
    tests = [
        test
        for name, test in vars(test_store_contract).items()
        if name.startswith("test_") and list(inspect.signature(test).parameters) == ["kind", "redis_url"]
    ]
    assert len(tests) > 20
    for test in tests:
        test("redis", url)
