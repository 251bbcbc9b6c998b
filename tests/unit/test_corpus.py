"""Every log and snapshot that was ever written is taken up by this version as by the one that wrote it."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from corpus.case import HERE, Case, cases
from corpus.resume import resume

from perdure.store import memory, records
from perdure.store.memory import MemoryStore

CASES = cases()


def test_each_format_up_to_the_present_one_is_on_file() -> None:
    on_file = {int(case.name.split("/")[0]) for case in CASES}
    assert on_file == set(range(1, records.FORMAT + 1)), "python -m corpus.write writes those of a new format"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_on_file_goes_on_to_its_result(case: Case) -> None:
    async def scenario() -> None:
        loaded, began = case.loaded, time.monotonic()
        store = MemoryStore(lambda: case.time + 1 + time.monotonic() - began)
        run = memory._Run(
            log=list(loaded.records),
            seq=loaded.seq,
            base=loaded.base,
            snapshot=loaded.snapshot,
            digest=case.dump().fields["digest"].decode(),
            outcome=case.dump().fields.get("outcome"),
        )
        store.runs["corpus", "it"] = run
        outcome = await resume(case, store.run("corpus", "it"))
        assert outcome["reason"] == "Completed", outcome
        result = outcome["result"]
        if case.flow == "FansOut":
            pages = [f"folder-{n}/{page}" for n in range(3) for page in range(n + 2)]
            assert result["read"] == pages
            assert result["begun"] == {"by": "corpus", "deep": [1, {"two": None}]}
            result = {"totals": result["totals"]}
        assert result == case.result

    asyncio.run(scenario())


def test_the_header_says_the_format_in_every_record_and_snapshot() -> None:
    for case in CASES:
        written = int(case.name.split("/")[0])
        for data in [*case.loaded.records, *filter(None, [case.loaded.snapshot])]:
            assert data[:2] == b"PD" and data[2] == written, case.name


def test_what_is_on_file_is_whole() -> None:
    """A checkout that changes line ends, or a merge, must not be taken for a change of the code."""
    for case in CASES:
        records.check(case.loaded, case.seal)
    assert (HERE / ".gitattributes").read_text() == "*/*/log binary\n*/*/snapshot binary\n"
    assert all(re.fullmatch(r"\d+/[a-z-]+", case.name) for case in CASES)
