"""The chart, as helm renders it. Needs helm on the PATH or in PERDURE_HELM."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from perdure_operator.kube import Kube
from perdure_operator.settings import PREFIX, OperatorSettings

CHARTS = Path(__file__).parents[2] / "charts"
HELM = os.environ.get("PERDURE_HELM") or shutil.which("helm") or ""

pytestmark = pytest.mark.skipif(not HELM, reason="no helm on the PATH or in PERDURE_HELM")


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *args], capture_output=True, text=True, timeout=60, check=False)


def render(*sets: str) -> list[dict[str, Any]]:
    flags = [flag for one in sets for flag in ("--set", one)]
    done = helm("template", "rel", str(CHARTS / "perdure"), "--namespace", "sys", *flags)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def environment(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@pytest.mark.parametrize("chart", ["perdure", "perdure-crds"])
def test_the_charts_pass_helms_own_lint(chart: str) -> None:
    done = helm("lint", "--strict", str(CHARTS / chart))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_understands_all_that_the_chart_tells_it() -> None:
    env = environment(render("watchNamespaces={a,b}"))
    redis = env.pop(PREFIX + "REDIS_URL")
    assert redis == {"secretKeyRef": {"name": "rel-redis", "key": "url"}}
    known = {PREFIX + name.upper() for name in OperatorSettings.model_fields}
    assert set(env) <= known
    settings = OperatorSettings.from_env(env)
    assert settings.namespaces == ("a", "b")
    assert settings.watch_nodes is True


def rights(objects: list[dict[str, Any]], kind: str) -> set[tuple[str, str]]:
    return {
        (resource, verb)
        for role in of_kind(objects, kind)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_has_the_rights_it_uses_and_no_more() -> None:
    # One right for each method of Kube; watch is kopf's, for the three kinds it watches.
    used = {
        ("workflowruns", "list"): Kube.list_runs,
        ("workflowruns", "get"): Kube.get_run,
        ("workflowruns", "patch"): Kube.put_finalizers,
        ("workflowruns", "delete"): Kube.delete_run,
        ("workflowruns/status", "update"): Kube.put_status,
        ("pods", "list"): Kube.list_pods,
        ("pods", "get"): Kube.get_pod,
        ("pods", "create"): Kube.create_pod,
        ("pods", "delete"): Kube.delete_pod,
        ("nodes", "list"): Kube.list_nodes,
        ("secrets", "get"): Kube.get_secret,
        ("secrets", "create"): Kube.create_secret,
        ("secrets", "update"): Kube.put_secret,
        ("configmaps", "get"): Kube.get_configmap,
        ("configmaps", "create"): Kube.create_configmap,
        ("namespaces", "get"): Kube.get_namespace,
        ("events", "create"): Kube.create_event,
    }
    methods = {
        method for name, method in vars(Kube).items() if re.match(r"(get|list|put|create|delete)_", name)
    }
    assert set(used.values()) == methods
    watched = {("workflowruns", "watch"), ("pods", "watch"), ("nodes", "watch")}
    assert rights(render(), "ClusterRole") == set(used) | watched


def test_with_namespaces_named_the_operator_has_rights_in_those_alone() -> None:
    objects = render("watchNamespaces={a,b}", "rbac.nodes=false")
    assert {role["metadata"]["namespace"] for role in of_kind(objects, "Role")} == {"a", "b"}
    assert of_kind(objects, "ClusterRole") == []
    assert of_kind(objects, "ClusterRoleBinding") == []


def test_with_namespaces_and_nodes_the_cluster_role_shows_nodes_and_namespaces_only() -> None:
    assert rights(render("watchNamespaces={a}"), "ClusterRole") == {
        ("nodes", "list"),
        ("nodes", "watch"),
        ("namespaces", "get"),
    }


def test_the_redis_keeps_what_it_acknowledged_and_evicts_nothing() -> None:
    objects = render()
    (config,) = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "rel-redis"]
    lines = config["data"]["redis.conf"].splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(lines)
    (redis,) = of_kind(objects, "StatefulSet")
    assert redis["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    (secret,) = of_kind(objects, "Secret")
    password = secret["stringData"]["password"]
    assert secret["stringData"]["url"] == f"redis://:{password}@rel-redis.sys.svc:6379/0"
    assert password not in config["data"]["redis.conf"]


def test_a_url_of_ones_own_needs_no_redis() -> None:
    objects = render("redis.url=redis://mine:6379/0")
    assert of_kind(objects, "StatefulSet") == []
    assert of_kind(objects, "Secret")[0]["stringData"] == {"url": "redis://mine:6379/0"}


def test_files_that_a_url_names_can_be_mounted() -> None:
    url = r"rediss+sentinel://:pw@a:26379\,b:26379/mine?ssl_ca_certs=/tls/ca.crt"
    objects = render(
        f"redis.url={url}",
        "operator.volumes[0].name=tls,operator.volumes[0].secret.secretName=redis-ca",
        "operator.volumeMounts[0].name=tls,operator.volumeMounts[0].mountPath=/tls",
    )
    (secret,) = of_kind(objects, "Secret")
    assert secret["stringData"]["url"] == url.replace("\\", "")
    pod = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]
    assert {"name": "tls", "secret": {"secretName": "redis-ca"}} in pod["volumes"]
    assert {"name": "tls", "mountPath": "/tls"} in pod["containers"][0]["volumeMounts"]


def test_a_secret_of_ones_own_is_used_as_it_is() -> None:
    objects = render("redis.existingSecret=mine", "redis.existingSecretKey=REDIS")
    assert of_kind(objects, "Secret") == []
    assert environment(objects)[PREFIX + "REDIS_URL"] == {"secretKeyRef": {"name": "mine", "key": "REDIS"}}


def test_without_a_store_each_run_must_name_one() -> None:
    objects = render("redis.enabled=false")
    assert PREFIX + "REDIS_URL" not in environment(objects)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("redis.url=mine:6379", "/redis/url"),
        ("redis.appendfsync=never", "/redis/appendfsync"),
        ("operator.workers=0", "/operator/workers"),
        ("nosuch=1", "nosuch"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting: str, told: str) -> None:
    done = helm("template", "rel", str(CHARTS / "perdure"), "--set", setting)
    assert done.returncode != 0
    assert told in done.stderr
