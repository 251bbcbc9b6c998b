"""kill -9 at each command of the commit path: before the request, after it, before the reply."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos.bare import BareRun
from proxy import Cut, Proxy
from redis_server import RedisServer

from perdure.store.scripts import script

COUNT = 48


class Killer(Proxy):
    """A proxy whose cut is a death: the client is gone before anything more can happen to it."""

    victim: Callable[[], None] = staticmethod(lambda: None)
    _cuts = 0

    @property
    def cuts(self) -> int:
        return self._cuts

    @cuts.setter
    def cuts(self, count: int) -> None:
        if count:
            self.victim()
        self._cuts = count


@pytest.fixture
def killer(redis_server: RedisServer) -> Iterator[Killer]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Killer("127.0.0.1", redis_server.port)
    asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
    yield proxy
    asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


COMMANDS = {
    "acquire": script("acquire").sha.encode(),
    "load": b"LRANGE",
    "commit": script("commit").sha.encode(),
    "the snapshot's bytes": b":snap.next\r\n$",
    "cut": script("cut").sha.encode(),
}


@pytest.mark.parametrize("how", list(Cut))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_there_loses_nothing_and_repeats_nothing(
    redis_url: str, tmp_path: Path, killer: Killer, command: str, how: Cut
) -> None:
    notes = tmp_path / "notes"
    run = BareRun(redis_url, tmp_path, "habits:FansOut", lease=10, notes=str(notes), count=COUNT, pause=0.01)
    try:
        runner: list[subprocess.Popen[bytes]] = []
        killer.victim = lambda: os.killpg(runner[0].pid, signal.SIGKILL)
        killer.cut_at(COMMANDS[command], how)
        runner.append(run.start(through=f"redis://127.0.0.1:{killer.port}/0"))
        assert runner[0].wait(60) == -signal.SIGKILL, f"{command} was never sent"
        before = run.facts().meta
        run.epoch = 1
        run.take_over()
        assert run.start().wait(60) == 0, run.log.read_text()
        outcome = run.outcome()
        assert outcome is not None
        assert outcome.reason == "Completed"
        assert outcome.result == list(range(COUNT))
        assert before is not None
        recorded: set[str] = set()
        for line in notes.read_text().splitlines():
            _, what, number = line.split()
            assert what == "recorded" or number not in recorded, f"{number} was done again"
            if what == "recorded":
                recorded.add(number)
    finally:
        run.close()
