"""Names and labels of what the operator makes for a run.

Each name carries the run's uid: a re-created run of the same name never meets the old one's objects.
"""

from __future__ import annotations

from typing import Any

from perdure.control.api import API_VERSION, KIND, Metadata

RUN = "perdure.dev/run"
RUN_UID = "perdure.dev/run-uid"
EPOCH = "perdure.dev/epoch"
RUNNER = "runner"
URL_KEY = "url"


def base(meta: Metadata) -> str:
    return f"{meta.name[:40].rstrip('-.')}-{meta.uid[:8]}"


def pod(meta: Metadata, epoch: int) -> str:
    return f"{base(meta)}-{epoch}"


def store_secret(meta: Metadata) -> str:
    return f"{base(meta)}-store"


def source_configmap(meta: Metadata) -> str:
    return f"{base(meta)}-source"


def owner(meta: Metadata) -> dict[str, Any]:
    """blockOwnerDeletion is false: setting it needs a right on the run's finalizers."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def owned(meta: Metadata, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """The metadata of an object that goes when its run goes."""
    return {
        "name": name,
        "namespace": meta.namespace,
        "labels": {**(labels or {}), RUN: meta.name, RUN_UID: meta.uid},
        "ownerReferences": [owner(meta)],
    }
