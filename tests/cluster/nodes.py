"""What can happen to a node, done to the container that it is, and undone."""

from __future__ import annotations

import json
from typing import Any

from cluster.cluster import Cluster
from cluster.shell import run

NETWORK = "perdure"


class Nodes:
    """Faults by node name; `heal` takes back whatever was done."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._hurt = True  # by a session before this one, for all we know
        self._addresses = cluster.addresses()

    def pause(self, node: str) -> None:
        """Freeze it and all that runs on it, as a host that hangs; `unpause` makes zombies."""
        self._hurt = True
        run("docker", "pause", node)

    def unpause(self, node: str) -> None:
        run("docker", "unpause", node)

    def kill(self, node: str) -> None:
        """Power off."""
        self._hurt = True
        run("docker", "kill", node)

    def cut_off(self, node: str) -> None:
        """Take it from the network; what runs on it goes on."""
        self._hurt = True
        run("docker", "network", "disconnect", NETWORK, node)

    def join(self, node: str) -> None:
        """Undo `cut_off`. The address stays: the other nodes and the node's own certificate know it."""
        run("docker", "network", "connect", "--ip", self._addresses[node], NETWORK, node)
        self._cluster.lay_routes()

    def drain(self, node: str) -> None:
        self._hurt = True
        self._cluster.kubectl(
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=90s",
            timeout=100,
        )

    def heal(self) -> None:
        """Bring every node back, and wait until the cluster is as it was."""
        if not self._hurt:
            return
        touched = False
        for node in self._addresses:
            seen = _inspect(node)
            if seen["State"]["Paused"]:
                self.unpause(node)
            if not seen["State"]["Running"]:
                run("docker", "start", node)
                touched = True
            elif not _address(seen):
                run("docker", "network", "connect", "--ip", self._addresses[node], NETWORK, node)
                touched = True
        if touched:
            self._cluster.lay_routes()
        self._cluster.kubectl("uncordon", *self._addresses)
        self._cluster.wait_nodes()
        self._hurt = False


def _inspect(node: str) -> Any:
    return json.loads(run("docker", "inspect", node))[0]


def _address(inspected: Any) -> str:
    network = inspected["NetworkSettings"]["Networks"].get(NETWORK)
    return network["IPAddress"] if network else ""
