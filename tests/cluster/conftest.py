"""One real cluster for the whole session; each test leaves it as it found it.

PERDURE_CLUSTER names the cluster. One that is up already is used, and one that PERDURE_CLUSTER_KEEP=1
asks to keep is left standing; PERDURE_CLUSTER_KEEP=installed takes the Perdure that is on it, too.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.cluster import Cluster, say
from cluster.nodes import Nodes
from cluster.runs import NAMESPACE, SOURCES, Run, succeeded
from cluster.shell import CommandFailed

HERE = Path(__file__).parent
MEASURED = pytest.StashKey[list[str]]()
FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASURED] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            # The first one's set-up creates the cluster and builds the image.
            item.add_marker(pytest.mark.timeout(1200))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        cluster = getattr(item, "funcargs", {}).get("cluster")
        if cluster is not None:
            report.sections.append(("the cluster", cluster.story(NAMESPACE)))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.stash[MEASURED]:
        terminalreporter.section("measured")
        for line in config.stash[MEASURED]:
            terminalreporter.write_line(line)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Lines for the end of the report."""
    lines = request.config.stash[MEASURED]
    return lambda text: lines.append(f"{request.node.name}: {text}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    name = os.environ.get("PERDURE_CLUSTER", "perdure-test")
    keep = os.environ.get("PERDURE_CLUSTER_KEEP", "")
    say(f"bringing up the cluster {name}")
    up = Cluster.up(name)
    try:
        if keep != "installed":
            install(up)
        up.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=180)
        up.kubectl("create", "namespace", NAMESPACE)
        files = [f"--from-file={path}" for path in SOURCES]
        up.kubectl("-n", NAMESPACE, "create", "configmap", "workflows", *files)
        yield up
    finally:
        up.close()
        if not keep:
            up.down()


def install(cluster: Cluster) -> None:
    say("building and loading the image")
    cluster.build_image()
    say("installing the charts")
    # Gigabytes of images are on their way to the disk, and what comes next measures seconds.
    os.sync()
    try:
        cluster.install()
    except CommandFailed:
        say(cluster.story(NAMESPACE))
        raise


@pytest.fixture(scope="session")
def nodes(cluster: Cluster) -> Nodes:
    nodes = Nodes(cluster)
    nodes.heal()
    return nodes


@pytest.fixture(autouse=True)
def healed(cluster: Cluster, nodes: Nodes) -> Iterator[None]:
    yield
    nodes.heal()
    cluster.wait_operator()


_numbers = itertools.count(1)


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Callable[..., Run]]:
    """Starts a run of the documents example, with what is given laid over its spec, under a new name."""
    runs: list[Run] = []

    def start(name: str, **spec: Any) -> Run:
        runs.append(Run.start(cluster, f"{name}-{next(_numbers)}", **spec))
        return runs[-1]

    yield start
    for run in runs:
        run.delete()


@pytest.fixture(scope="session")
def reference(cluster: Cluster) -> Any:
    """The result of a run that nothing happens to."""
    run = Run.start(cluster, "uninterrupted", input={"limit": 320})
    status = run.wait_finished()
    assert succeeded(status), status
    assert status["attempt"] == 1
    assert status["result"]["documents"] == 320
    return status["result"]
