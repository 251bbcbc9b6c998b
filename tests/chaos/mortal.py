"""Runners that die by the hundred: the real ones, forked from a process that has imported them."""

from __future__ import annotations

import multiprocessing
import os
import signal

from chaos.bare import BareRun


def life(environment: dict[str, str], log: str) -> None:
    """One runner, as `perdure-runner` is."""
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environment)
    from perdure.runner.main import main

    main()


def forkserver() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["perdure.runner.child"])
    return context


class Mortal(BareRun):
    """A run whose runners are forked rather than started, and die of kill -9."""

    lives: multiprocessing.context.ForkServerContext

    def spend(self, seconds: float | None) -> bool:
        """One runner's life, of so many seconds or to its own end; whether it was killed."""
        environment = self.settings().to_env()
        runner = self.lives.Process(target=life, args=(environment, str(self.log)))
        runner.start()
        runner.join(seconds)
        killed = runner.is_alive()
        if killed:
            assert runner.pid is not None
            try:
                os.killpg(runner.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no session of its own yet
                runner.kill()
        runner.join(60)
        assert killed or runner.exitcode == 0, self.log.read_text()
        return killed
