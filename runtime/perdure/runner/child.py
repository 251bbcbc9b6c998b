"""The engine's process: takes the run, then the user's code, runs it under the lease, gives it back.

The run is acquired before user code is imported: an import may take longer than a lease, and a
second runner of the same epoch must not get to import anything.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from dataclasses import dataclass

import structlog

from perdure.control.outcome import Termination, decode_outcome
from perdure.durable import DurableRun
from perdure.engine.gate import Gate
from perdure.errors import (
    CheckpointCorruptError,
    EntrypointError,
    IncompatibleError,
    LeaseLostError,
    PerdureError,
    RunEndedError,
    StateLostError,
    StoreAccessError,
    StoreUnavailableError,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowValidationError,
)
from perdure.runner import exits, logs
from perdure.runner.entrypoint import add_source_path, load_workflow
from perdure.runner.settings import RunnerSettings
from perdure.runner.timer import KernelTimer
from perdure.store.base import Acquired, Renewed
from perdure.store.lease import Lease, Loss
from perdure.store.records import Record
from perdure.store.redis import RedisStore
from perdure.store.sealing import Seal, seal_of
from perdure.store.session import RunSession
from perdure.workflow import Workflow

log = structlog.stdlib.get_logger("perdure.runner")

CONNECT_SECONDS = 60.0  # how long the first connection may fail before the runner gives up
LEAVE_SECONDS = 5.0  # of the grace period, kept for the release
TIMER_SWITCH = "PERDURE_TEST_LEASE_TIMER"  # "off" leaves the fence alone; for tests of the fence


@dataclass(slots=True, frozen=True)
class End:
    """How this process ends, and what it says last."""

    code: int
    kind: str
    reason: str
    message: str = ""


class Unstartable(PerdureError):
    """The run can never work as it is specified; `reason` is the outcome's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def run(settings: RunnerSettings) -> int:
    """Run the workflow that `settings` name; the exit code. The caller ends the process at once."""
    logs.configure(run=settings.run, attempt=settings.attempt, epoch=settings.epoch)
    try:
        seal = seal_of(settings.compression, settings.encryption_keys)
    except (ValueError, IncompatibleError) as error:
        end = End(exits.HOPELESS, "refused", "Incompatible", f"checkpoint: {error}")
        log.error("the runner can't begin", detail=end.message)
        _leave_words(settings, end, seq=0)
        return end.code
    child = Child(settings, seal)
    # Not asyncio.run: it would wait for the threads of steps that can't be cancelled.
    end = asyncio.new_event_loop().run_until_complete(child.execute())
    child.leave_words(end)
    log.info("the runner ends", exit_code=end.code, kind=end.kind, reason=end.reason, detail=end.message)
    return end.code


class Child:
    """One runner's life, from acquire to release."""

    def __init__(self, settings: RunnerSettings, seal: Seal) -> None:
        self._settings = settings
        self._gate = Gate()
        self._draining = asyncio.Event()
        self._desired = "Running"
        self._durable: DurableRun | None = None
        self._raising: asyncio.Future[None] | None = None
        self._ttl_ms = int(settings.lease_seconds * 1000)
        self._run_store = RedisStore.from_url(settings.redis_url).run(settings.namespace, settings.uid)
        self._session = RunSession(
            self._run_store,
            epoch=settings.epoch,
            holder=f"{settings.holder}.{secrets.token_hex(4)}",
            max_bytes=settings.max_bytes,
            replicas=settings.replicas,
            seal=seal,
            on_waiting=self._store_waits,
        )

    async def execute(self) -> End:
        """All of it. Whatever happens is an End: an exception here would be a crash without a word."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._draining.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            return await self._execute()
        except RunEndedError as error:
            reason = decode_outcome(error.outcome).reason
            return End(exits.FINISHED, "finished", reason, "the run had ended already")
        except LeaseLostError as error:
            return End(exits.FENCED, "fenced", "Fenced", str(error))
        except Unstartable as error:
            return End(exits.HOPELESS, "refused", error.reason, str(error))
        except CheckpointCorruptError as error:
            return End(exits.HOPELESS, "refused", "CheckpointCorrupt", str(error))
        except IncompatibleError as error:
            return End(exits.HOPELESS, "refused", "Incompatible", str(error))
        except (StoreUnavailableError, StoreAccessError) as error:
            return End(1, "crashed", "StoreUnavailable", str(error))
        except StateLostError as error:
            return End(1, "crashed", "StateLost", str(error))
        except Exception as error:
            log.exception("the runner failed")
            return End(1, "crashed", type(error).__name__, str(error))

    async def _execute(self) -> End:
        ttl = self._settings.lease_seconds
        acquired, sent_at = await self._acquire()
        log.info("acquired", seq=acquired.seq, cause=acquired.cause, store_restarted=acquired.restarted)
        self._desired = acquired.desired
        judge = os.environ.get(TIMER_SWITCH) != "off"
        loop = asyncio.get_running_loop()
        lease = Lease(
            self._run_store.renewer(Lease.timeout(ttl)),
            self._settings.epoch,
            self._session.holder,
            ttl,
            self._gate,
            acquired_at=sent_at,
            on_renewed=lambda renewed, _: loop.call_soon_threadsafe(self._renewed, renewed),
            on_lost=self._lost,
            on_rolled_back=lambda: loop.call_soon_threadsafe(self._raise_epoch),
            timer=KernelTimer(ttl) if judge else None,
            judge=judge,
        )
        lease.start()
        try:
            return await self._run(acquired)
        finally:
            lease.stop()

    async def _acquire(self) -> tuple[Acquired, float]:
        """The run, and when the acquire that took it was sent (monotonic)."""
        give_up = time.monotonic() + CONNECT_SECONDS
        while True:
            sent_at = time.monotonic()
            try:
                answer = await self._session.acquire(self._ttl_ms)
            except (StoreUnavailableError, StoreAccessError) as error:
                if time.monotonic() > give_up or self._draining.is_set():
                    raise Unstartable("StoreUnavailable", str(error)) from error
                log.warning("the store can't be used yet, trying on", error=str(error))
                await asyncio.sleep(random.uniform(0.5, 1.0))  # a fleet must not come all at once
                continue
            return answer, sent_at

    async def _run(self, acquired: Acquired) -> End:
        settings = self._settings
        workflow = await self._user_code(begun=acquired.seq > 0)
        snapshot, records = await self._load()
        try:
            durable = DurableRun.start(
                workflow,
                self._session,
                snapshot,
                records,
                acquired=acquired,
                gate=self._gate,
                durability=settings.durability,
                serializer=settings.serializer,
                run_id=settings.uid,  # idempotency keys come of it: a name may be used again
            )
        except (WorkflowRuntimeError, WorkflowValidationError, WorkflowConfigurationError) as error:
            raise Unstartable("InvalidSpec", str(error)) from error
        self._durable = durable
        self._obey()
        ended = asyncio.ensure_future(durable.wait())
        asked = asyncio.ensure_future(self._draining.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            try:
                async with asyncio.timeout(max(1.0, settings.grace_seconds - LEAVE_SECONDS / 2)):
                    log.info("asked to stop: steps in flight may reach a commit of their own")
                    await durable.drain(max(0.0, settings.grace_seconds - LEAVE_SECONDS))
                    await ended
            except TimeoutError:
                return End(exits.FENCED, "crashed", "StoreUnavailable", "could not give the run back in time")
        outcome = await ended
        if outcome is not None:
            return End(exits.FINISHED, "finished", decode_outcome(outcome).reason)
        return await self._release()

    async def _load(self) -> tuple[bytes | None, list[Record]]:
        while True:
            try:
                return await self._session.load()
            except StoreUnavailableError as error:
                if self._draining.is_set():
                    raise  # nothing was begun: end by oneself rather than by the kubelet's kill
                self._store_waits(error)
                await asyncio.sleep(0.5)

    async def _user_code(self, *, begun: bool) -> Workflow[object]:
        """Import and make the workflow; counts as user code for the lease."""
        while not self._gate.enter():  # noqa: ASYNC110 - the gate belongs to threads, and this is rare
            await asyncio.sleep(0.05)
        try:
            add_source_path(self._settings.source_path)
            workflow = load_workflow(self._settings.entrypoint)
            if not workflow._disable_validation:
                workflow.validate()
        except (EntrypointError, WorkflowValidationError, WorkflowConfigurationError) as error:
            if begun:
                raise  # it could be imported once: what it lacks now may come back, so the run may not end of it
            raise Unstartable("InvalidSpec", str(error)) from error
        finally:
            self._gate.leave()
        return workflow

    async def _release(self) -> End:
        await self._session.release("yield")
        return End(exits.RELEASED, "released", "Released", "gave the run back")

    # --- what the lease tells -------------------------------------------------------------------------

    def _renewed(self, renewed: Renewed) -> None:
        self._desired = renewed.desired
        if self._durable is not None:
            self._durable.renewed(renewed)
        self._obey()

    def _obey(self) -> None:
        if self._desired == "Cancelled" and self._durable is not None:
            self._durable.cancel("Cancelled", "cancelled by spec.desiredState")

    def _raise_epoch(self) -> None:
        """The store went back to before this epoch: tell it again, also while no commit is on its way."""
        if self._raising is None or self._raising.done():
            self._raising = asyncio.ensure_future(self._take_again())

    async def _take_again(self) -> None:
        try:
            await self._session.reacquire()
        except LeaseLostError:
            self._lost(Loss.FENCED)
        except (RunEndedError, StateLostError) as error:
            log.warning("the run can't be taken again", error=str(error))  # the next commit ends it
        else:
            log.warning("told the store this epoch again")

    @staticmethod
    def _store_waits(error: StoreUnavailableError | None) -> None:
        if error is None:
            log.info("the store is back")
        else:
            log.warning("waiting for the store", error=str(error))

    def _lost(self, reason: str) -> None:
        """Called in the lease's thread, and ends the process there: the loop may be in user code."""
        if reason == Loss.ENDED:
            end = End(exits.FINISHED, "finished", "Ended", "the run has its outcome")
        elif reason == Loss.FENCED:
            end = End(exits.FENCED, "fenced", "Fenced", "another runner has the run")
        else:
            end = End(exits.FENCED, "fenced", "LeaseLost", "lease expired with user code under way")
        log.error("the runner ends at once", reason=end.reason, detail=end.message)
        self.leave_words(end)
        exits.leave(end.code)

    def leave_words(self, end: End) -> None:
        _leave_words(self._settings, end, self._session.seq)


def _leave_words(settings: RunnerSettings, end: End, seq: int) -> None:
    exits.leave_words(
        settings.termination_log,
        Termination(epoch=settings.epoch, seq=seq, kind=end.kind, reason=end.reason, message=end.message),
    )
