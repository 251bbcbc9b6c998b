"""Every log and snapshot on file can be told, without the code that it ran: in order, each doing a step's own."""

from __future__ import annotations

import sys

import pytest
from corpus.case import Case, cases

from perdure import history


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_is_on_file_is_told_without_its_code(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("corpus.flows")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "corpus.flows", None)  # its import fails from here on
    entries = history.read(case.dump().meta, case.loaded, case.seal)
    assert [entry.seq for entry in entries] == sorted(entry.seq for entry in entries)
    assert {entry.seq for entry in entries} >= {record_seq(data) for data in case.loaded.records}
    assert all(entry.bytes > 0 for entry in entries)
    done = [entry for entry in entries if entry.what in ("returned", "failed")]
    assert all(entry.step and entry.invocation and entry.attempt for entry in done)
    times = [entry.time for entry in entries if entry.time is not None]
    assert times == sorted(times)


def record_seq(data: bytes) -> int:
    return int.from_bytes(data[12:20], "big")


@pytest.mark.parametrize("name", ["stubborn-log", "stubborn-cut"])
def test_an_attempt_is_counted_on_whether_the_log_or_the_snapshot_has_those_before(name: str) -> None:
    case = next(case for case in cases() if case.name.endswith(name))
    again = [entry for entry in history.read(case.dump().meta, case.loaded) if entry.what == "due again"]
    assert [(entry.step, entry.attempt) for entry in again] == [("tries", 2)]


@pytest.mark.parametrize("name", ["family-log", "family-cut"])
def test_what_a_child_did_is_told_as_its_own(name: str) -> None:
    case = next(case for case in cases() if case.name.endswith(name))
    entries = history.read(case.dump().meta, case.loaded)
    first = [(entry.what, entry.step, entry.detail) for entry in entries if entry.child == "first"]
    assert first[-3:] == [
        ("wrote", "begin", "done: 1 more"),
        ("returned", "begin", "Part"),
        ("returned", "end", "StopEvent"),
    ]
    commits = [entry for entry in entries if entry.what == "child"]
    assert all(entry.child == "" for entry in commits), "to its parent they are its own step's"
