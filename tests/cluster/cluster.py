"""A kind cluster with Perdure installed, and kubectl on it."""

from __future__ import annotations

import json
import os
import sys
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.shell import CommandFailed, run, wait_for
from cluster.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SYSTEM = "perdure-system"
RELEASE = "perdure"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Cluster:
    """`settings` is what env/prepare printed: images and where the tools are."""

    name: str
    settings: dict[str, str]
    environment: dict[str, str]
    image: str = ""
    _store: Store | None = None

    @classmethod
    def up(cls, name: str) -> Cluster:
        """The cluster of that name, created where it isn't up."""
        settings = dict(line.split("=", 1) for line in run(str(HERE / "env/prepare"), timeout=5400).split())
        run(str(HERE / "env/cluster"), "up", name, timeout=900)
        kubeconfig = run(str(HERE / "env/cluster"), "kubeconfig", name).strip()
        path = f"{settings['PERDURE_TOOLS']}:{os.environ['PATH']}"
        # The legacy builder is the only one that works without a registry.
        buildkit = (
            {"DOCKER_BUILDKIT": "0"} if settings["PERDURE_NODE_IMAGE"].startswith("perdure.dev/") else {}
        )
        environment = {**os.environ, "KUBECONFIG": kubeconfig, "PATH": path, **buildkit}
        return cls(name, settings, environment)

    def close(self) -> None:
        """What the tests hold open; the cluster stays."""
        if self._store is not None:
            self._store.close()

    def down(self) -> None:
        run(str(HERE / "env/cluster"), "down", self.name, timeout=300)

    def tool(self, *command: str, stdin: str | None = None, timeout: float = 300.0) -> str:
        return run(*command, stdin=stdin, env=self.environment, timeout=timeout, cwd=str(ROOT))

    @property
    def store(self) -> Store:
        if self._store is None:
            service = f"{RELEASE}-redis"
            encoded = self.kubectl("-n", SYSTEM, "get", "secret", service, "-o", "jsonpath={.data.password}")
            self._store = Store(self, SYSTEM, service, b64decode(encoded).decode())
        return self._store

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        return self.tool("kubectl", *arguments, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, manifest: dict[str, Any], namespace: str) -> None:
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(manifest))

    def addresses(self) -> dict[str, str]:
        """By node. As Kubernetes knows them: one that is cut off has none in Docker."""
        return {
            node["metadata"]["name"]: next(
                address["address"]
                for address in node["status"]["addresses"]
                if address["type"] == "InternalIP"
            )
            for node in self.get("nodes")["items"]
        }

    def lay_routes(self) -> None:
        run(str(HERE / "env/cluster"), "routes", self.name)

    # --- Perdure on it ---------------------------------------------------------------------------

    def build_image(self) -> None:
        """The project's image from this tree, named by its content, on every node."""
        base = self.settings["PERDURE_PYTHON_IMAGE"]
        built = self.tool(
            "docker",
            "build",
            "-q",
            "--network",
            "host",
            "--build-arg",
            f"BASE_IMAGE={base}",
            ".",
            timeout=900,
        )
        identity = built.strip().splitlines()[-1].removeprefix("sha256:")[:12]
        self.image = f"perdure.dev/perdure:{identity}"
        run("docker", "tag", identity, self.image)
        self.load(self.image)
        if self.settings["PERDURE_REDIS_IMAGE"].startswith("perdure.dev/"):
            self.load(self.settings["PERDURE_REDIS_IMAGE"])

    def load(self, image: str) -> None:
        self.tool("kind", "load", "docker-image", image, "--name", self.name)

    def install(self) -> None:
        """Both charts; what the tests must not kill by accident sits on the control plane."""
        self.tool("helm", "upgrade", "--install", "perdure-crds", "charts/perdure-crds", "--wait")
        repository, tag = self.image.rsplit(":", 1)
        redis = self.settings["PERDURE_REDIS_IMAGE"]
        values = f"image.repository={repository},image.tag={tag},redis.image={redis}"
        self.tool(
            "helm", "upgrade", "--install", RELEASE, "charts/perdure", "--namespace", SYSTEM, "--create-namespace",
            "--values", str(HERE / "values.yaml"), "--set-string", values, "--wait", "--timeout", "3m",
        )  # fmt: skip

    def operator_pod(self) -> str:
        pods = self.get("-n", SYSTEM, "pods", "-l", "app.kubernetes.io/component=operator")["items"]
        alive = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return alive[0] if alive else ""

    def wait_nodes(self, within: float = 240.0) -> None:
        """Every node ready and open for pods."""

        def ready() -> bool:
            nodes = self.get("nodes")["items"]
            return all(
                any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
                and not node["spec"].get("unschedulable")
                for node in nodes
            )

        wait_for(ready, within, "all nodes ready", every=1.0)

    def wait_operator(self) -> None:
        deployment = f"deployment/{RELEASE}-operator"
        self.kubectl("-n", SYSTEM, "rollout", "status", deployment, "--timeout=120s", timeout=150)

    def story(self, namespace: str) -> str:
        """What one would look at after a failure."""
        looks = [
            ("get", "nodes"),
            ("-n", namespace, "get", "wfr,pods", "-o", "wide"),
            ("-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"),
            ("-n", SYSTEM, "get", "pods", "-o", "wide"),
            ("-n", SYSTEM, "logs", f"deployment/{RELEASE}-operator", "--tail=80"),
        ]
        parts = []
        for look in looks:
            try:
                text = self.kubectl(*look, timeout=30)
            except CommandFailed as error:
                text = str(error)
            parts.append(f"$ kubectl {' '.join(look)}\n" + "\n".join(text.splitlines()[-80:]))
        return "\n\n".join(parts)
