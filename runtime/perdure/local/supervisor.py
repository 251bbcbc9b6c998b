"""What the operator is in a cluster: observe, decide, apply, for one run and its child processes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from perdure.control.actions import (
    Action,
    AddFinalizer,
    CreatePod,
    Decision,
    DeletePod,
    DeleteRun,
    Event,
    RemoveFinalizer,
    Requeue,
    SetStatus,
)
from perdure.control.api import WorkflowRun
from perdure.control.case import Case
from perdure.control.copying import copy_progress
from perdure.control.decide import decide
from perdure.control.observation import Observation, StoreView
from perdure.control.storeside import apply_to_store, goes_on, observe_store
from perdure.control.storewatch import StoreWatch, system_clock
from perdure.errors import StoreAccessError, StoreUnavailableError
from perdure.local.processes import Processes
from perdure.local.state import NAMESPACE, RunFolder, is_over
from perdure.runner.settings import RunnerSettings
from perdure.store.base import Store
from perdure.store.records import input_record
from perdure.store.sealing import KEYS_VARIABLE

log = logging.getLogger("perdure.local")

INSTALLATION = "local"
GRACE_SECONDS = 10.0  # someone who pressed Ctrl-C waits for it
NOTE_SECONDS = 3.0
LAST_RUNNER_SECONDS = 10.0  # for a runner whose outcome is committed to end by itself


@dataclass(slots=True, frozen=True)
class Sight:
    """One look at the run, for whoever shows it."""

    run: WorkflowRun
    store: StoreView


class Supervisor:
    """Keeps one run going until it is over, or until `stop`.

    poll: seconds between two looks while nothing happens. on_sight, on_event: called with what
    was seen and with what was decided. before_look: called before each look.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: WorkflowRun,
        store: Store,
        *,
        redis_url: str,
        source_path: str,
        poll: float,
        on_sight: Callable[[Sight], None],
        on_event: Callable[[Event], None],
        on_output: Callable[[str], None],
        before_look: Callable[[], object] = lambda: None,
    ) -> None:
        self._folder = folder
        self._run = run
        self._store = store
        self._redis_url = redis_url
        self._source_path = source_path
        self._poll = poll
        self._on_sight = on_sight
        self._on_event = on_event
        self._before_look = before_look
        self._watch = StoreWatch(system_clock())
        self._changed = asyncio.Event()
        self._stopping = False
        self.processes = Processes(folder.path, on_change=self._changed.set, on_output=on_output)

    @property
    def run(self) -> WorkflowRun:
        """The run with its status as last written."""
        return self._run

    async def until_over(self) -> WorkflowRun:
        """Return when the run is over and its last runner has ended, or after `stop`."""
        while not self._stopping and not is_over(self._run):
            self._changed.clear()
            wait = await self.step()
            await self._sleep(min(wait, self._poll))
        if not self._stopping:
            await self.processes.end_all(LAST_RUNNER_SECONDS)
        return self._run

    def stop(self) -> None:
        """Decide nothing more; `until_over` returns soon."""
        self._stopping = True
        self._changed.set()

    async def note_progress(self) -> None:
        """Write how far the run is, if its store answers soon: what was last written may be seconds old."""
        try:
            async with asyncio.timeout(NOTE_SECONDS):
                obs = await self._observe()
        except TimeoutError:
            return  # who interrupted it waits for this, and the store has what matters
        if obs.store.meta is not None:
            case = Case(self._run.spec, self._run.status, obs, time.time())
            copy_progress(case, obs.store.meta)
            self._run = self._folder.write_status(self._run, case.draft)

    async def step(self) -> float:
        """One look and what follows from it; seconds until the next is due."""
        self._before_look()
        obs = await self._observe()
        self._on_sight(Sight(self._run, obs.store))
        decision = decide(self._run.spec, self._run.status, obs, time.time())
        if decision.row == 42:
            log.error("no rule for what was seen: %r", obs)
        return await self._apply(decision)

    async def _observe(self) -> Observation:
        run = self._run
        pods = self.processes.pods()  # before the store: an exit that is seen left its outcome there
        view = await observe_store(
            self._store,
            self._watch,
            namespace=NAMESPACE,
            uid=run.metadata.uid,
            expected_id=run.status.store_id,
            lease_seconds=run.spec.recovery.lease_seconds,
            clock=system_clock,
        )
        return Observation(store=view, pods=pods, generation=run.metadata.generation, finalizer=True)

    async def _apply(self, decision: Decision) -> float:
        """Carry the actions out in their order; the first that doesn't hold ends it."""
        wait = 5.0
        for action in decision.actions:
            if isinstance(action, Requeue):
                wait = action.after
            elif not await self._carry_out(action):
                return 0.5
        return wait

    async def _carry_out(self, action: Action) -> bool:
        """Whether the rest of the decision still holds."""
        match action:
            case SetStatus(status=status, events=events):
                self._run = self._folder.write_status(self._run, status)
                for event in events:
                    self._on_event(event)
            case CreatePod(epoch=epoch, attempt=attempt):
                await self.processes.start(f"{self._folder.name}-{epoch}", self._settings(epoch, attempt))
            case DeletePod(uid=uid, grace=grace):
                self.processes.delete(uid, grace)
            case AddFinalizer() | RemoveFinalizer() | DeleteRun() | Requeue():
                pass  # a run on a laptop is a folder: there is nobody to keep from deleting it
            case _:
                run_store = self._store.run(NAMESPACE, self._run.metadata.uid)
                try:
                    reply = await apply_to_store(
                        action,
                        run_store,
                        record0=input_record(self._run.spec.input),
                        installation=INSTALLATION,
                    )
                except (StoreUnavailableError, StoreAccessError) as error:
                    log.warning("%s: %s; trying again", type(action).__name__, error)
                    return False
                return goes_on(action, reply)
        return True

    def _settings(self, epoch: int, attempt: int) -> RunnerSettings:
        spec, metadata = self._run.spec, self._run.metadata
        grace = spec.template.termination_grace_period_seconds
        return RunnerSettings(
            namespace=NAMESPACE,
            run=metadata.name,
            uid=metadata.uid,
            epoch=epoch,
            attempt=attempt,
            holder=f"{metadata.uid}-{epoch}",
            entrypoint=spec.workflow.entrypoint,
            redis_url=self._redis_url,
            durability=spec.checkpoint.durability,
            serializer=spec.checkpoint.serializer,
            max_bytes=spec.checkpoint.max_bytes,
            replicas=spec.checkpoint.replicas,
            compression=spec.checkpoint.compression,
            encryption_keys=os.environ.get(KEYS_VARIABLE, "") if spec.checkpoint.encryption_keys_ref else "",
            lease_seconds=spec.recovery.lease_seconds,
            grace_seconds=min(grace, GRACE_SECONDS),
            cancel_grace_seconds=spec.cancel_grace_period_seconds,
            source_path=self._source_path,
        )

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
