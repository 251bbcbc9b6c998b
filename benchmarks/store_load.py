"""`python -m benchmarks.store_load URL RUNS STEPS AT`: so many chains at once, from the time AT on.

Prints when it began and when it had ended.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time

from benchmarks.server import hush
from benchmarks.store_runs import Chain
from perdure.store.redis import RedisStore


async def main(url: str, runs: int, steps: int, at: float) -> None:
    store = RedisStore.from_url(url)
    workflow = Chain(timeout=None)

    async def run() -> None:
        run_id = f"bench-{secrets.token_hex(8)}"
        await workflow.run(run_id=run_id, store=store, steps=steps)
        await store.run("local", run_id).clean()

    await run()  # what is loaded and compiled only once
    await asyncio.sleep(max(0.0, at - time.time()))
    began = time.time()
    await asyncio.gather(*(run() for _ in range(runs)))
    sys.stdout.write(f"{began} {time.time()}\n")
    await store.close()


if __name__ == "__main__":
    hush()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
