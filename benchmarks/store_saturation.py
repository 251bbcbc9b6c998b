"""How many commits and runs a second one Redis takes, and who is busy then: for information, without a goal."""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import sys
import time
from functools import partial

import hiredis

from benchmarks import server
from benchmarks.benchmark import Benchmark
from perdure.store import replies
from perdure.store.base import Commit
from perdure.store.records import digest, frame, input_record
from perdure.store.redis import RedisStore
from perdure.store.scripts import script

RUNS, STEPS = 16, 300
SHORT_RUNS = 200  # of three steps each
START_SECONDS = 2.5  # until all processes have loaded what they need
AT_ONCE = 32


def _spans(processes: int, runs: int, steps: int) -> float:
    """Seconds from the first one's begin to the last one's end."""
    at = str(time.time() + START_SECONDS)
    command = [sys.executable, "-m", "benchmarks.store_load", server.url(), str(runs), str(steps), at]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    spans = [process.communicate()[0].split() for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"{' '.join(command)} failed")
    return max(float(end) for _, end in spans) - min(float(begin) for begin, _ in spans)


def _commits(processes: int, runs: int) -> float:
    # Each step is a commit; so is the begin.
    return processes * runs * (STEPS + 1) / _spans(processes, runs, STEPS - 1) / 1e3


def _runs(processes: int) -> float:
    return processes * SHORT_RUNS / _spans(processes, SHORT_RUNS, 2)


def _without_clients() -> float:
    """Commits made beforehand, many in one packet: what is left is Redis."""
    runs = [f"bench-{secrets.token_hex(8)}" for _ in range(RUNS)]

    async def begin() -> list[list[str]]:
        store = RedisStore.from_url(server.url())
        keys = []
        for run_id in runs:
            run = store.run("local", run_id)
            await run.init(input_record({}))
            await run.acquire(1, "bench", 60_000)
            keys.append([run._keys.meta, run._keys.log])
        await store.close()
        return keys

    packets = [b""] * (STEPS // AT_ONCE + 1)
    for keys in asyncio.run(begin()):
        previous = digest(input_record({}))
        for seq in range(1, STEPS + 1):
            record = frame(seq, 1, b"x" * 150)
            commit = Commit(
                seq=seq,
                digest=digest(record),
                record=record,
                progress=True,
                flight=(("-", str(seq - 1), ""), ("+", str(seq), "go_on")),
                summary=b"{}".ljust(160),
                previous=previous,
            )
            previous = commit.digest
            arguments = replies.commit_arguments(1, "bench", commit)
            packets[seq // AT_ONCE] += hiredis.pack_command(
                ("EVALSHA", script("commit").sha, len(keys), *keys, *arguments)  # type: ignore[arg-type]
            )
    with server.client() as client:
        client.script_load(script("commit").source)  # type: ignore[no-untyped-call]
        reader, answers = hiredis.Reader(), 0
        port = int(client.connection_pool.connection_kwargs["port"])
        with socket.create_connection(("127.0.0.1", port)) as wire:
            began = time.perf_counter()
            for packet in packets:
                wire.sendall(packet)
            while answers < RUNS * STEPS:
                reader.feed(wire.recv(65536))
                while (answer := reader.gets()) is not False:
                    if answer[0] != b"OK":
                        raise RuntimeError(f"a commit was answered {answer}")
                    answers += 1
            took = time.perf_counter() - began
        client.flushall()
    return RUNS * STEPS / took / 1e3


COMMITS = Benchmark(
    name="store-saturation",
    title="commits of one Redis, everysec",
    unit="thousand a second",
    sides={
        "1 run": partial(_commits, 1, 1),
        f"{RUNS} runs, 1 process": partial(_commits, 1, RUNS),
        f"{RUNS} runs in each of 2 processes": partial(_commits, 2, RUNS),
        f"{RUNS} runs in each of 4 processes": partial(_commits, 4, RUNS),
        "prepared, Redis alone": _without_clients,
    },
    rounds=3,
    around=server.server,
)

SHORT = Benchmark(
    name="store-saturation-runs",
    title="runs of three steps, begun and ended",
    unit="a second",
    sides={"1 process": partial(_runs, 1), "2 processes": partial(_runs, 2)},
    rounds=3,
    around=server.server,
)
