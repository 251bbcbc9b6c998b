"""`perdure-operator`: kopf for the watches, and the workers that act on what they bring."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any, cast

import kopf
import structlog
from prometheus_client import start_http_server
from pydantic import ValidationError

from perdure_operator.apply import Applier
from perdure_operator.cache import Cache, RunKey
from perdure_operator.events import INSTANCE
from perdure_operator.handlers import registry
from perdure_operator.kube import Kube, KubeError
from perdure_operator.observe import Observer
from perdure_operator.queue import WorkQueue, work
from perdure_operator.reconcile import Reconciler
from perdure_operator.settings import PREFIX, OperatorSettings
from perdure_operator.stores import Stores
from perdure_operator.sweep import Sweep

log = structlog.get_logger(__name__)


def main() -> None:
    try:
        settings = OperatorSettings.from_env(os.environ)
    except ValidationError as error:
        for problem in error.errors():
            name = PREFIX + str(problem["loc"][0]).upper()
            print(f"perdure-operator: {name}: {problem['msg']}", file=sys.stderr)
        sys.exit(2)
    configure_logs(settings.log_level)
    asyncio.run(operate(settings))


async def operate(settings: OperatorSettings) -> None:
    """Until SIGTERM or SIGINT, which kopf handles; raises what ends any of the parts."""
    kube = Kube.connect(threads=settings.workers + 2)
    cache = Cache()
    queue: WorkQueue[RunKey] = WorkQueue()
    stores = Stores(kube, settings.redis_url, settings.store_timeout)
    sweep = Sweep(kube, cache, stores, queue, settings)
    reconcile = Reconciler(
        cache, Observer(kube, cache, stores, settings), Applier(kube, cache, stores, settings)
    )
    start_http_server(settings.metrics_port)
    # Before any decision: a run whose pods were not listed yet would look as if they were gone.
    await _first(sweep)
    log.info("operator started", runs=len(cache.runs), namespaces=settings.namespaces or "all")
    parts: list[Coroutine[Any, Any, None]] = [
        kopf.operator(
            registry=registry(cache, queue, stores, watch_nodes=settings.watch_nodes),
            standalone=True,
            # By default kopf asks for the user's name, and a container's user has none.
            identity=cast(Any, INSTANCE),
            clusterwide=not settings.namespaces,
            namespaces=list(settings.namespaces),
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        ),
        sweep.forever(),
        *(work(queue, reconcile) for _ in range(settings.workers)),
    ]
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        # kopf ends by a signal; any other end is a fault, and a new process is the cure.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stores.close()


async def _first(sweep: Sweep) -> None:
    delay = 1.0
    while True:
        try:
            return await sweep.once()
        except KubeError as error:
            log.warning("the API server can't be used yet", error=str(error), seconds=delay)
        await asyncio.sleep(delay)
        delay = min(30.0, delay * 2)


def configure_logs(level: str) -> None:
    """JSON lines on stderr, kopf's and other libraries' as well."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line for each event handled and each probe answered: for those who debug kopf.
    for name in ("kopf.objects", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
