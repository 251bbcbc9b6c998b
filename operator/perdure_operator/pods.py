"""The runner pod of one epoch of a run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.control.api import PodTemplate, WorkflowRun
from perdure.runner.settings import RunnerSettings
from perdure.store.sealing import KEYS_VARIABLE
from perdure_operator import names

SOURCE_PATH = "/perdure/source"
TERMINATION_LOG = "/dev/termination-log"
USER = 65532
# The lease, not the node controller, says when a runner is lost: its default of 300 s would only add a
# second judge, who shoots runners that are cut off from the API server and well.
LOST_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def runner_pod(
    run: WorkflowRun,
    *,
    epoch: int,
    attempt: int,
    avoid_nodes: Sequence[str],
    image: str,
    image_pull_policy: str,
) -> dict[str, Any]:
    """The pod's manifest. `image` is used where the run names none of its own."""
    template = run.spec.template
    own_image = run.spec.workflow.image
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # A name server may have died with the node: ask another after 1 s, not after 5.
        "dnsConfig": {"options": [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "5"}]},
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
        "securityContext": _pod_security(template),
        "tolerations": _tolerations(template),
        "containers": [
            {
                "name": names.RUNNER,
                "image": own_image or image,
                **({} if own_image else {"imagePullPolicy": image_pull_policy}),
                "command": ["perdure-runner"],
                "env": _environment(run, epoch, attempt),
                "envFrom": template.env_from,
                "resources": template.resources.model_dump(exclude_defaults=True),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePath": TERMINATION_LOG,
                "terminationMessagePolicy": "File",
                "volumeMounts": _mounts(run),
            }
        ],
        "volumes": _volumes(run),
        "affinity": _affinity(template.affinity, avoid_nodes),
        "nodeSelector": template.node_selector,
        "serviceAccountName": template.service_account_name,
        "imagePullSecrets": [secret.model_dump() for secret in template.image_pull_secrets],
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
    }
    meta = names.owned(run.metadata, names.pod(run.metadata, epoch), template.labels)
    meta["labels"][names.EPOCH] = str(epoch)
    meta["annotations"] = dict(template.annotations)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {key: value for key, value in spec.items() if value not in (None, {}, [])},
    }


def _environment(run: WorkflowRun, epoch: int, attempt: int) -> list[dict[str, Any]]:
    spec, meta = run.spec, run.metadata
    settings = RunnerSettings(
        namespace=meta.namespace,
        run=meta.name,
        uid=meta.uid,
        epoch=epoch,
        attempt=attempt,
        holder="",
        entrypoint=spec.workflow.entrypoint,
        redis_url="",
        durability=spec.checkpoint.durability,
        serializer=spec.checkpoint.serializer,
        max_bytes=spec.checkpoint.max_bytes,
        replicas=spec.checkpoint.replicas,
        compression=spec.checkpoint.compression,
        lease_seconds=spec.recovery.lease_seconds,
        grace_seconds=spec.template.termination_grace_period_seconds,
        cancel_grace_seconds=spec.cancel_grace_period_seconds,
        source_path=SOURCE_PATH if spec.workflow.source else "",
        termination_log=TERMINATION_LOG,
    )
    ours: list[dict[str, Any]] = [
        {"name": name, "value": value}
        for name, value in settings.to_env().items()
        if name not in ("PERDURE_REDIS_URL", "PERDURE_HOLDER", KEYS_VARIABLE)
    ]
    ours.append({"name": "PERDURE_HOLDER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}})
    secret = {"name": names.store_secret(meta), "key": names.URL_KEY}
    ours.append({"name": "PERDURE_REDIS_URL", "valueFrom": {"secretKeyRef": secret}})
    keys = spec.checkpoint.encryption_keys_ref
    if keys is not None:
        # The user's own Secret, not a copy: a successor is to get the keys of after a rotation.
        ours.append(
            {"name": KEYS_VARIABLE, "valueFrom": {"secretKeyRef": {"name": keys.name, "key": keys.key}}}
        )
    taken = {variable["name"] for variable in ours}
    theirs = [
        variable.model_dump(by_alias=True, exclude_none=True)
        for variable in spec.template.env
        if variable.name not in taken
    ]
    # An image of the user's own may set a HOME that a read-only root file system refuses.
    home = [] if any(one["name"] == "HOME" for one in theirs) else [{"name": "HOME", "value": "/tmp"}]
    return [*home, *theirs, *ours]


def _pod_security(template: PodTemplate) -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
        **(template.security_context or {}),
    }


def _tolerations(template: PodTemplate) -> list[dict[str, Any]]:
    taken = {toleration.get("key") for toleration in template.tolerations}
    ours = [
        {"key": key, "operator": "Exists", "effect": "NoExecute"}
        for key in LOST_NODE_TAINTS
        if key not in taken
    ]
    return [*template.tolerations, *ours]


def _mounts(run: WorkflowRun) -> list[dict[str, Any]]:
    mounts = list(run.spec.template.volume_mounts)
    if not any(mount.get("mountPath") == "/tmp" for mount in mounts):
        mounts.append({"name": "perdure-tmp", "mountPath": "/tmp"})
    if run.spec.workflow.source:
        mounts.append({"name": "perdure-source", "mountPath": SOURCE_PATH, "readOnly": True})
    return mounts


def _volumes(run: WorkflowRun) -> list[dict[str, Any]]:
    volumes = [*run.spec.template.volumes, {"name": "perdure-tmp", "emptyDir": {}}]
    if run.spec.workflow.source:
        # The copy, not the user's: the kubelet updates a mounted ConfigMap under the running pod.
        source = {"name": names.source_configmap(run.metadata)}
        volumes.append({"name": "perdure-source", "configMap": source})
    return volumes


def _affinity(wanted: Mapping[str, Any] | None, avoid_nodes: Sequence[str]) -> dict[str, Any] | None:
    """The user's affinity, and other nodes than those where a runner fell silent, if there are any."""
    if not avoid_nodes:
        return dict(wanted) if wanted else None
    affinity = dict(wanted or {})
    node = dict(affinity.get("nodeAffinity") or {})
    avoid = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in avoid_nodes]
    node["preferredDuringSchedulingIgnoredDuringExecution"] = [
        *(node.get("preferredDuringSchedulingIgnoredDuringExecution") or []),
        {"weight": 100, "preference": {"matchFields": avoid}},
    ]
    affinity["nodeAffinity"] = node
    return affinity
