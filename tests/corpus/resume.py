"""Takes a run on file up again, in any store."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from corpus import flows
from corpus.case import Case
from perdure.durable import DurableRun
from perdure.inbox import message
from perdure.store.base import Acquired, RunStore
from perdure.store.session import RunSession


async def resume(case: Case, run: RunStore, *, epoch: int = 2) -> dict[str, Any]:
    """Its outcome. Raises what keeps this code from going on with it."""
    for number, (kind, fields) in enumerate(case.answers):
        assert (await run.send(message(kind, json.dumps(fields).encode(), str(number)))).ok
    if case.ended:
        assert (await run.reopen(epoch, 1)).ok
    else:
        assert (await run.advance(epoch, "Crashed")).ok
    session = RunSession(run, epoch=epoch, holder="successor", seal=case.seal)
    acquired = await session.acquire(60_000)
    assert isinstance(acquired, Acquired)
    snapshot, records = await session.load()
    durable = DurableRun.start(
        getattr(flows, case.flow)(),
        session,
        snapshot,
        records,
        acquired=acquired,
        serializer=case.serializer,
        run_id=case.name.replace("/", "-"),
    )
    async with asyncio.timeout(60):
        outcome = await durable.wait()
    await session.settle()
    assert outcome is not None
    found: dict[str, Any] = json.loads(outcome)
    return found
