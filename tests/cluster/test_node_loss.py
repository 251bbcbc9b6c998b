"""The node of a run freezes: another goes on, and what thaws can do no harm."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from cluster.nodes import Nodes
from cluster.runs import NodeSideLog, Run, condition, succeeded
from cluster.shell import wait_for

PROGRESS_WITHIN = 20.0
WORKERS = 4
INPUT = {"limit": 320, "delay": 0.3}
WORKFLOW = {"entrypoint": "ticking:Documents", "source": {"configMapRef": {"name": "workflows"}}}


def ticks_after(log: str, moment: float) -> list[float]:
    return [when for found in re.findall(r"\btick (\d+\.\d+)", log) if (when := float(found)) > moment]


class Frozen:
    """A run whose node was paused in the middle, and whose successor has made progress elsewhere."""

    def __init__(self, run: Run, nodes: Nodes) -> None:
        self.run = run
        self.nodes = nodes
        meta, self.pod = run.wait_middle()
        self.log = NodeSideLog(self.pod)
        wait_for(lambda: "tick" in self.log.text(), 10, "the runner's log on its node")
        since = time.monotonic()
        nodes.pause(self.pod.node)
        self.paused = time.time()
        self.seconds = run.wait_progress(meta, since, PROGRESS_WITHIN)
        successor = run.pod(run.meta().epoch)
        assert successor.node != self.pod.node

    def thaw(self) -> None:
        # Long enough for the lease to have been over however the clocks are read.
        self.nodes.unpause(self.pod.node)

    def ticks(self) -> list[float]:
        """When user code of the frozen runner ran after the pause."""
        return ticks_after(self.log.text(), self.paused + 0.2)

    def assert_right(self, reference: Any) -> None:
        status = self.run.wait_finished()
        assert succeeded(status), status
        assert status["result"] == reference
        assert status["attempt"] == 2
        assert status["disruptions"] == 1
        assert status["failures"] == 0
        assert 1 <= status["replayedSteps"] <= WORKERS
        first, second = status["attempts"]
        assert first["reason"] == "LeaseExpired"
        assert first["node"] == self.pod.node
        assert second["node"] != self.pod.node
        assert 0 < second["recoverySeconds"] <= PROGRESS_WITHIN
        assert condition(status, "Finished")["status"] == "True"


def test_a_successor_goes_on_within_20_seconds_and_the_zombie_ends_itself(
    start: Callable[..., Run], nodes: Nodes, reference: Any, measured: Callable[[str], None]
) -> None:
    frozen = Frozen(start("frozen", workflow=WORKFLOW, input=INPUT), nodes)
    measured(f"progress {frozen.seconds:.1f} s after docker pause")
    frozen.thaw()
    wait_for(
        lambda: "killed by the kernel timer" in frozen.log.text(), 30, "the zombie's word on how it ended"
    )
    time.sleep(1)
    assert frozen.ticks() == [], "user code ran after the lease was over"
    frozen.assert_right(reference)


def test_without_the_lease_timer_the_fence_refuses_the_zombies_commit(
    start: Callable[..., Run], nodes: Nodes, reference: Any, measured: Callable[[str], None]
) -> None:
    template = {"env": [{"name": "PERDURE_TEST_LEASE_TIMER", "value": "off"}]}
    frozen = Frozen(start("fenced", workflow=WORKFLOW, input=INPUT, template=template), nodes)
    assert frozen.run.meta().fenced == 0
    frozen.thaw()
    refused = wait_for(lambda: frozen.run.meta().fenced, 30, "a refused write of the zombie")
    measured(f"progress {frozen.seconds:.1f} s after docker pause, {refused} refused of the zombie's writes")
    # It lives for some milliseconds: until the store's answer to its commit.
    wait_for(lambda: '"reason": "Fenced"' in frozen.log.text(), 30, "the zombie's word on how it ended")
    assert "killed by the kernel timer" not in frozen.log.text(), "the timer was to be off"
    frozen.assert_right(reference)
