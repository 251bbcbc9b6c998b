"""`make cluster`: a cluster to play with, this tree's Perdure installed."""

from __future__ import annotations

import os

from cluster.cluster import HERE, Cluster, say


def main() -> None:
    name = os.environ.get("PERDURE_CLUSTER", "perdure")
    say(f"bringing up the cluster {name}")
    cluster = Cluster.up(name)
    say("building and loading the image")
    cluster.build_image()
    say("installing the charts")
    cluster.install()
    print(f"""
The cluster {name} is up, with Perdure on it. To use it:

  export KUBECONFIG={cluster.environment["KUBECONFIG"]}
  export PATH={cluster.settings["PERDURE_TOOLS"]}:$PATH
  kubectl create configmap documents --from-file=examples/documents/documents.py
  kubectl apply -f examples/documents/run.yaml
  kubectl get wfr -w

To remove it: {HERE.relative_to(HERE.parent.parent)}/env/cluster down {name}""")


if __name__ == "__main__":
    main()
