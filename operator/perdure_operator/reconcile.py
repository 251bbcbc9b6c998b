"""One look at one run: observe, decide, apply."""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from perdure.control.decide import decide
from perdure.errors import StoreError
from perdure.store.durability import judge
from perdure_operator import metrics
from perdure_operator.apply import Applier
from perdure_operator.cache import Cache, RunKey
from perdure_operator.kube import KubeError
from perdure_operator.observe import Observer, Sight
from perdure_operator.queue import Retry
from perdure_operator.source import SourceMissingError
from perdure_operator.stores import StoreUrlError

log = structlog.get_logger(__name__)

UNDECIDED = 42


@dataclass(slots=True)
class Reconciler:
    cache: Cache
    observer: Observer
    applier: Applier

    async def __call__(self, key: RunKey) -> float | None:
        """Seconds until the next look, None when nothing but a change asks for one. Raises Retry."""
        body = self.cache.runs.get(key)
        if body is None:
            return None
        began, row = time.monotonic(), 0
        try:
            sight = await self.observer.look(body, time.time())
            run = sight.run
            decision = decide(run.spec, run.status, sight.observation, time.time())
            row = decision.row
            self._tell(sight, row)
            return await self.applier.apply(sight, decision)
        except SourceMissingError as error:
            raise Retry(str(error)) from error
        except (KubeError, StoreError, StoreUrlError) as error:
            metrics.FAILURES.inc()
            raise Retry(f"{type(error).__name__}: {error}") from error
        except Retry:
            raise
        except Exception:
            metrics.FAILURES.inc()
            raise
        finally:
            metrics.RECONCILE.labels(str(row)).observe(time.monotonic() - began)

    def _tell(self, sight: Sight, row: int) -> None:
        run, store = sight.run, sight.observation.store
        place = (
            "default" if run.spec.store_ref is None else f"{run.metadata.namespace}/{run.spec.store_ref.name}"
        )
        metrics.STORE_UP.labels(place).set(store.answers)
        if store.answers:
            metrics.tell_durable(place, judge(store.doubts))
        if run.status.completion_time is not None or run.metadata.deletion_timestamp is not None:
            self.observer.stores.forget(run.metadata.uid)
        if row == UNDECIDED:
            metrics.UNDECIDED.inc()
            log.error("no rule covers this", run=str(run.metadata.name), observation=repr(sight.observation))
        else:
            log.debug("decided", run=f"{run.metadata.namespace}/{run.metadata.name}", row=row)
