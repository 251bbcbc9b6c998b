"""The runner pod's manifest: what the operator promises of it, and what a template may not change."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.control.api import WorkflowRun, read_run
from perdure.runner.settings import RunnerSettings
from perdure_operator import names
from perdure_operator.pods import runner_pod

UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


def a_run(name: str = "documents", **spec: Any) -> WorkflowRun:
    body = {
        "apiVersion": "perdure.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"name": name, "namespace": "team", "uid": UID, "resourceVersion": "7"},
        "spec": {"workflow": {"entrypoint": "documents:workflow"}, **spec},
    }
    run, refused = read_run(body)
    assert refused == ""
    return run


def a_pod(run: WorkflowRun | None = None, epoch: int = 3, avoid: tuple[str, ...] = ()) -> dict[str, Any]:
    return runner_pod(
        run or a_run(),
        epoch=epoch,
        attempt=2,
        avoid_nodes=avoid,
        image="perdure:1",
        image_pull_policy="IfNotPresent",
    )


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_a_pods_name_carries_the_runs_uid_and_epoch() -> None:
    assert a_pod()["metadata"]["name"] == "documents-0f1e2d3c-3"


def test_a_long_name_is_cut_and_stays_a_name() -> None:
    name = names.pod(a_run("a" * 39 + "-" + "b" * 12).metadata, 12)
    assert name == "a" * 39 + "-0f1e2d3c-12"
    assert len(name) <= 63


def test_the_run_owns_its_pod_and_is_found_by_uid() -> None:
    meta = a_pod()["metadata"]
    (owner,) = meta["ownerReferences"]
    assert owner == {
        "apiVersion": "perdure.dev/v1alpha1",
        "kind": "WorkflowRun",
        "name": "documents",
        "uid": UID,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    assert meta["labels"] == {names.RUN: "documents", names.RUN_UID: UID, names.EPOCH: "3"}


def test_a_template_adds_labels_but_cant_take_ours() -> None:
    run = a_run(template={"labels": {"team": "a", names.RUN_UID: "another", names.EPOCH: "99"}})
    labels = a_pod(run)["metadata"]["labels"]
    assert labels["team"] == "a"
    assert (labels[names.RUN_UID], labels[names.EPOCH]) == (UID, "3")


def test_the_runner_reads_its_settings_from_the_pods_environment() -> None:
    env = {one["name"]: one.get("value", "from elsewhere") for one in container(a_pod())["env"]}
    settings = RunnerSettings.from_env(env)
    assert (settings.run, settings.namespace, settings.uid) == ("documents", "team", UID)
    assert (settings.epoch, settings.attempt, settings.grace_seconds) == (3, 2, 30.0)


def test_the_redis_url_is_only_in_a_secret_and_the_holder_is_the_pods_uid() -> None:
    by_name = {one["name"]: one for one in container(a_pod())["env"]}
    assert by_name["PERDURE_REDIS_URL"] == {
        "name": "PERDURE_REDIS_URL",
        "valueFrom": {"secretKeyRef": {"name": "documents-0f1e2d3c-store", "key": "url"}},
    }
    assert by_name["PERDURE_HOLDER"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_encryption_keys_come_from_the_users_secret_alone() -> None:
    checkpoint = {"replicas": 1, "compression": "Zstd", "encryptionKeysRef": {"name": "state-keys"}}
    environment = container(a_pod(a_run(checkpoint=checkpoint)))["env"]
    given = {variable["name"]: variable for variable in environment}
    assert given["PERDURE_ENCRYPTION_KEYS"] == {
        "name": "PERDURE_ENCRYPTION_KEYS",
        "valueFrom": {"secretKeyRef": {"name": "state-keys", "key": "keys"}},
    }
    assert (given["PERDURE_REPLICAS"]["value"], given["PERDURE_COMPRESSION"]["value"]) == ("1", "Zstd")
    without = {variable["name"] for variable in container(a_pod(a_run()))["env"]}
    assert "PERDURE_ENCRYPTION_KEYS" not in without


def test_a_template_cant_set_the_runners_own_variables() -> None:
    run = a_run(
        template={"env": [{"name": "PERDURE_EPOCH", "value": "99"}, {"name": "COLOUR", "value": "red"}]}
    )
    env = container(a_pod(run))["env"]
    assert [one["value"] for one in env if one["name"] == "PERDURE_EPOCH"] == ["3"]
    assert {"name": "COLOUR", "value": "red"} in env


def test_the_pod_is_bare_and_has_no_rights() -> None:
    spec = a_pod()["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(a_pod())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_lost_node_doesnt_evict_the_pod_after_kubernetes_300_seconds() -> None:
    tolerations = a_pod()["spec"]["tolerations"]
    lost = {one["key"] for one in tolerations if one["effect"] == "NoExecute"}
    assert lost == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert not any("tolerationSeconds" in one for one in tolerations)


def test_a_successor_prefers_other_nodes_and_keeps_the_templates_wishes() -> None:
    wish = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}
    preferred = a_pod(a_run(template={"affinity": wish}), avoid=("n1", "n2"))["spec"]["affinity"][
        "nodeAffinity"
    ]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred[0] == {"weight": 1}
    assert preferred[1]["preference"]["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": ["n1"]},
        {"key": "metadata.name", "operator": "NotIn", "values": ["n2"]},
    ]
    assert wish == {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}


def test_no_affinity_without_a_node_to_avoid() -> None:
    assert "affinity" not in a_pod()["spec"]


def test_the_modules_are_mounted_from_the_runs_own_copy() -> None:
    run = a_run(
        workflow={"entrypoint": "documents:workflow", "source": {"configMapRef": {"name": "documents"}}}
    )
    pod = a_pod(run)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["perdure-source"]["configMap"] == {"name": "documents-0f1e2d3c-source"}
    env = {one["name"]: one.get("value") for one in container(pod)["env"]}
    (mount,) = [one for one in container(pod)["volumeMounts"] if one["name"] == "perdure-source"]
    assert mount["mountPath"] == env["PERDURE_SOURCE_PATH"]


@pytest.mark.parametrize("image", [None, "team/own:2"])
def test_the_runs_own_image_comes_before_the_operators(image: str | None) -> None:
    workflow = {"entrypoint": "documents:workflow", **({"image": image} if image else {})}
    assert container(a_pod(a_run(workflow=workflow)))["image"] == (image or "perdure:1")


def test_a_template_may_bring_its_own_tmp() -> None:
    run = a_run(
        template={
            "volumes": [{"name": "big", "emptyDir": {"sizeLimit": "9Gi"}}],
            "volumeMounts": [{"name": "big", "mountPath": "/tmp"}],
        }
    )
    assert [one["name"] for one in container(a_pod(run))["volumeMounts"]] == ["big"]


def test_a_dead_name_server_costs_the_runner_a_second_and_not_five() -> None:
    options = {one["name"]: one["value"] for one in a_pod()["spec"]["dnsConfig"]["options"]}
    assert options == {"timeout": "1", "attempts": "5"}
