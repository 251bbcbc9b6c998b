"""A durable step beside one of Restate's and of DBOS's, all synced to the disk before they go on.

The peers that aren't installed are left out: `python -m benchmarks.peers` installs them.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import peers, store_resume
from benchmarks.benchmark import Benchmark, Goal
from benchmarks.peers import beside_restate
from benchmarks.server import server
from benchmarks.store_runs import Chain, seconds

STEPS, DBOS_STEPS = 1_000, 50
HAS_RESTATE = peers.restate_server() is not None and peers.python() is not None
HAS_DBOS = peers.python() is not None

_MISSING = "" if HAS_RESTATE and HAS_DBOS else " (python -m benchmarks.peers installs those to compare with)"


def _perdure() -> float:
    return seconds(Chain(timeout=None), "Strict", steps=STEPS - 1) / STEPS * 1e6


def _dbos(*arguments: str) -> float:
    command = [str(peers.python()), str(peers.SCRIPTS / "dbos_chain.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
    return float(ended.stdout.split()[-1]) if ended.stdout else 0.0


def _dbos_step() -> float:
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        return _dbos(folder, str(DBOS_STEPS))


def _dbos_resume(steps: int) -> float:
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        _dbos(folder, str(steps), "stop")
        return _dbos(folder, str(steps), "resume")


@contextlib.contextmanager
def _servers(appendfsync: str) -> Iterator[None]:
    with server(appendfsync), beside_restate.server() if HAS_RESTATE else contextlib.nullcontext():
        yield


def _beside_peers(sides: dict[str, Callable[[], float]]) -> dict[str, Callable[[], float]]:
    if HAS_RESTATE:
        sides["Restate"] = partial(beside_restate.microseconds_a_step, STEPS)
    if HAS_DBOS:
        sides["DBOS"] = _dbos_step
    return sides


def _goals() -> list[Goal]:
    goals = []
    if HAS_RESTATE:
        goals.append(Goal("Perdure", 1 / 2, beside="Restate"))
    if HAS_DBOS:
        goals.append(Goal("Perdure", 1 / 20, beside="DBOS"))
    return goals


ALWAYS = Benchmark(
    name="store-peers",
    title=f"durable chain, each step synced to the disk{_MISSING}",
    unit="µs a step",
    sides=_beside_peers({"Perdure": _perdure}),
    goals=_goals(),
    around=partial(_servers, "always"),
)

EVERYSEC = Benchmark(
    name="store-peers-everysec",
    title=f"the same with Redis at appendfsync everysec, for information{_MISSING}",
    unit="µs a step",
    sides=_beside_peers({"Perdure": _perdure}),
    around=partial(_servers, "everysec"),
)

RESUME = Benchmark(
    name="store-peers-resume",
    title=f"resume behind {store_resume.MANY:,} steps{_MISSING}",
    unit="ms",
    sides={"Perdure": partial(store_resume.milliseconds, store_resume.MANY)}
    | ({"DBOS": partial(_dbos_resume, store_resume.MANY)} if HAS_DBOS else {}),
    goals=[Goal("Perdure", 1 / 100, beside="DBOS")] if HAS_DBOS else [],
    rounds=1,
    around=server,
)
