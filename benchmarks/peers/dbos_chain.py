"""`python dbos_chain.py FOLDER STEPS [stop | resume]`: a chain of steps under DBOS on SQLite, in the peers' environment.

Prints the microseconds that a step took; with `stop` it ends as by kill -9 when its last step begins, and
with `resume` prints the milliseconds from launch until that step begins again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

from dbos import DBOS
from llama_agents.dbos import DBOSRuntime
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
mode = sys.argv[3] if len(sys.argv) > 3 else ""
launched = time.perf_counter()


class Next(Event):
    number: int


class Chain(Workflow):
    @step
    async def begin(self, event: StartEvent) -> Next:
        return Next(number=steps)

    @step
    async def go_on(self, event: Next) -> Next | StopEvent:
        if event.number > 1:
            return Next(number=event.number - 1)
        if mode == "stop":
            os._exit(0)
        if mode == "resume":
            sys.stdout.write(f"{(time.perf_counter() - launched) * 1e3}\n")
            sys.stdout.flush()
            os._exit(0)
        return StopEvent()


async def main() -> None:
    global launched
    logging.disable(logging.CRITICAL)
    DBOS(
        config={
            "name": "chain",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "run_admin_server": False,
            "executor_id": "one",
        }
    )
    runtime = DBOSRuntime()
    workflow = Chain(runtime=runtime, timeout=None)
    launched = time.perf_counter()
    await runtime.launch()
    if mode == "resume":
        await asyncio.sleep(600)
    began = time.perf_counter()
    await workflow.run()
    sys.stdout.write(f"{(time.perf_counter() - began) / steps * 1e6}\n")
    sys.stdout.flush()
    os._exit(0)


asyncio.run(main())
