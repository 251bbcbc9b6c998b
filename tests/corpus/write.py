"""Writes a run of each kind as the present format has it: `python -m corpus.write`, from tests/.

To be done when a format or a kind of run is new. What lies here is read for ever and rewritten never: a
case that is on file is left as it is.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

from corpus import flows
from corpus.case import HERE, Case
from perdure.durable import DurableRun
from perdure.errors import PerdureError
from perdure.store import sealing
from perdure.store import session as session_module
from perdure.store.base import Acquired, Commit, Reply
from perdure.store.memory import MemoryRunStore, MemoryStore
from perdure.store.records import FORMAT, input_record
from perdure.store.sealing import seal_of
from perdure.store.session import RunSession

BEGAN = 1_700_000_000.0  # store time
KEYS = "corpus:" + base64.b64encode(bytes(range(32))).decode()
ANSWERS = [["Answer", {"about": "second", "text": "B"}], ["Answer", {"about": "first", "text": "A"}]]
PAGES = {"totals": {"folder-0": 1, "folder-1": 3, "folder-2": 6}}

# name, workflow, input, serializer, the commit after which the process dies (None: it goes to its
# end), the commit from which a snapshot is cut (0: none), answers that are still to come, the result
KINDS: list[tuple[str, str, dict[str, Any], str, int | None, int, list[list[Any]], Any]] = [
    ("fans-out-log", "FansOut", {"count": 3}, "JSON", 9, 0, [], PAGES),
    ("fans-out-cut", "FansOut", {"count": 3}, "JSON", 8, 6, [], PAGES),
    ("patient-early", "Patient", {}, "JSON", 2, 0, ANSWERS, ["A", "B", ["left", "right"]]),
    ("patient-waits", "Patient", {}, "JSON", 5, 0, ANSWERS, ["A", "B", ["left", "right"]]),
    ("patient-cut", "Patient", {}, "JSON", 5, 4, ANSWERS, ["A", "B", ["left", "right"]]),
    ("stubborn-log", "Stubborn", {}, "JSON", 4, 0, [], ["breaks: left", True]),
    ("stubborn-cut", "Stubborn", {}, "JSON", 4, 3, [], ["breaks: left", True]),
    ("shapes-cut", "Shapes", {}, "JSON", 5, 3, [], [["0", "1", "2", "3"], "Square", "kept"]),
    ("shapes-log", "Shapes", {}, "JSON", 4, 0, [], [["0", "1", "2", "3"], "Square", "kept"]),
    ("pickles", "Pickles", {}, "Pickle", 3, 2, [], [[1, 2], 5.0]),
    ("family-cut", "Family", {}, "JSON", 7, 4, [], [["left", [0, 1, 2]], ["right", [0, 1, 2]]]),
    ("family-log", "Family", {}, "JSON", 9, 0, [], [["left", [0, 1, 2]], ["right", [0, 1, 2]]]),
    ("sealed-cut", "FansOut", {"count": 3}, "JSON", 8, 6, [], PAGES),
    ("sealed-log", "FansOut", {"count": 3}, "JSON", 9, 0, [], PAGES),
    ("failed", "Failed", {}, "JSON", None, 0, [], ["left", True]),
]


class Dead(PerdureError):
    """The process is gone."""


class Dying(MemoryRunStore):
    """Takes so many commits, then nothing more; from commit `cut_at` on the log is cut."""

    left: int | None = None
    cut_at = 0

    async def commit(self, epoch: int, holder: str, commit: Commit) -> Reply:
        if self.left == 0:
            await asyncio.sleep(0.2)  # for a cut under way, which its thread may still be compressing
            raise Dead
        if self.left is not None:
            self.left -= 1
        if commit.seq == self.cut_at - 1:
            session_module.SNAPSHOT_FLOOR = 0
        return await super().commit(epoch, holder, commit)


async def write(
    name: str,
    flow: str,
    fields: dict[str, Any],
    serializer: str,
    dies_after: int | None,
    cut_at: int,
    answers: list[list[Any]],
    result: Any,
) -> None:
    if (HERE / f"{FORMAT}/{name}").exists():
        return
    session_module.SNAPSHOT_FLOOR = 2**40
    sealing.COMPRESS_FROM = 64  # or none of these small ones would be
    started = time.monotonic()
    store = MemoryStore(lambda: BEGAN + time.monotonic() - started)
    words = ("Zstd", KEYS) if name.startswith("sealed") else ("None", "")
    seal = seal_of(*words)
    run = Dying(store, "corpus", name)
    run.left, run.cut_at = dies_after, cut_at
    await run.init(input_record(fields, seal))
    session = RunSession(run, epoch=1, holder="corpus", seal=seal)
    acquired = await session.acquire(10_000)
    assert isinstance(acquired, Acquired)
    snapshot, records = await session.load()
    workflow = getattr(flows, flow)()
    durable = DurableRun.start(
        workflow, session, snapshot, records, acquired=acquired, serializer=serializer, run_id=name
    )
    try:
        async with asyncio.timeout(2):
            await durable.wait()
    except (Dead, TimeoutError):
        durable.abandon(Dead())
    await session.settle()
    loaded = await run.load()
    assert loaded is not None and (dies_after is None or loaded.seq == dies_after), loaded
    assert (loaded.base >= 0) == (cut_at > 0), loaded.base
    case = Case(
        f"{FORMAT}/{name}",
        flow,
        serializer,
        store.clock(),
        dies_after is None,
        answers,
        result,
        loaded,
        *words,
    )
    case.write()
    print(f"{case.name}: seq {loaded.seq}, base {loaded.base}")


async def main() -> None:
    for kind in KINDS:
        await write(*kind)


if __name__ == "__main__":
    asyncio.run(main())
