"""`python restate_chain.py PORT`: serves a handler that runs as many durable steps as it is asked for."""

from __future__ import annotations

import asyncio
import sys

import hypercorn.asyncio
import hypercorn.config
import restate

chain = restate.Service("Chain")


@chain.handler()
async def run(context: restate.Context, steps: int) -> int:
    number = steps
    while number:
        number = await context.run_typed("go_on", lambda n=number: n - 1)
    return steps


config = hypercorn.config.Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
asyncio.run(hypercorn.asyncio.serve(restate.app(services=[chain]), config))
