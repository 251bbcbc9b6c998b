"""The periodic look at everything: what a watch or a hint missed costs seconds, not a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from perdure.control.api import read_status
from perdure_operator import metrics
from perdure_operator.cache import Cache, RunKey
from perdure_operator.kube import Kube, KubeError
from perdure_operator.queue import WorkQueue
from perdure_operator.settings import OperatorSettings
from perdure_operator.stores import Stores

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Sweep:
    kube: Kube
    cache: Cache
    stores: Stores
    queue: WorkQueue[RunKey]
    settings: OperatorSettings

    async def once(self) -> None:
        """List everything, and queue every run that isn't over. Raises KubeError."""
        mark = self.cache.mark()
        namespaces = self.settings.namespaces or (None,)
        runs = [run for one in namespaces for run in await self.kube.list_runs(one)]
        pods = [pod for one in namespaces for pod in await self.kube.list_pods(one)]
        self.cache.replace_runs(runs, mark)
        self.cache.replace_pods(pods, mark)
        if self.settings.watch_nodes:
            self.cache.replace_nodes(await self.kube.list_nodes())
        for key, body in list(self.cache.runs.items()):
            if read_status(body.get("status")).completion_time is None or body["metadata"].get(
                "deletionTimestamp"
            ):
                self.queue.add(key)
        metrics.count_runs(self.cache.runs.values())
        await self.stores.close_unused()

    async def forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.sweep_seconds)
            try:
                await self.once()
            except KubeError as error:
                log.warning("sweep failed", error=str(error))
