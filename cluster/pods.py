"""Pods of a Ray cluster under KubeRay: one head, and groups of equal workers.

Knows nothing of configurations or plans: it is told how much room a group needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from cluster.packing import GIB, Amounts, Group

Object = dict[str, Any]

CONFIGURATION_FOLDER = "/etc/ray-ensemble"
CONFIGURATION_FILE = "configuration.yaml"
"""Pods find the configuration under this name in that folder."""
DATA_FOLDER = "/data"
"""Where a batch job's pods find the volume with its input and output."""
SERVE_PORT = 8000
GROUP_LABEL = "ray-ensemble/group"
"""Ray's nodes have the name of their worker group under this label."""
_AGENT_PORT = 52365
_OBJECT_STORE = GIB
_OVERHEAD = 3 * GIB
"""Of each pod: the object store, Ray's own processes and Python's."""
_USER, _GROUP = 1000, 100
"""Of the ``ray`` user in Ray's images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and how the pods run."""

    image: str = field(default_factory=lambda: f"ray-ensemble:{version('ray-ensemble')}")
    """Image with this package and its dependencies. Omitted: ``ray-ensemble`` with the version of this package."""
    namespace: str = "default"
    pod_cpus: int = 8
    """Cores of a pod without GPUs; more where one replica needs more."""
    pod_memory: int = 8 * GIB
    """Least memory of a pod, in bytes; more where its replicas reserve more."""
    gpu_node_selectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Node labels by accelerator type; those under ``""`` are for GPUs of any kind."""
    data_claim: str | None = None
    """PersistentVolumeClaim with the input and output of batch jobs. Omitted: none, the image holds them."""


def head(name: str, target: Target) -> Object:
    """The head group, which holds no replicas, so that none takes the cluster's control down with it."""
    ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": SERVE_PORT}
    container = {
        **_container("ray-head", target, {"cpu": "2", "memory": _gib(target.pod_memory)}),
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "livenessProbe": _alive(),
        "readinessProbe": _probe("/api/healthz", _AGENT_PORT, delay=10, failures=10),
    }
    parameters = {"num-cpus": "0", "dashboard-host": "0.0.0.0", **_store()}
    return {"rayStartParams": parameters, "template": {"spec": _pod(name, container, target)}}


def workers(name: str, group: Group, target: Target, *, serving: bool) -> Object:
    """A worker group.

    Args:
        serving: requests reach these pods, so they are ready when Serve's proxy on them is.
    """
    proxy = _probe("/-/healthz", SERVE_PORT, delay=10, failures=1)
    container = {
        **_container("ray-worker", target, _limits(group.room, target)),
        "ports": [{"name": "serve", "containerPort": SERVE_PORT}],
        "livenessProbe": _alive(),
        "readinessProbe": proxy if serving else _probe("/api/healthz", _AGENT_PORT, delay=10, failures=10),
    }
    custom = {key: f"{value:g}" for key, value in group.room.custom.items()}
    return {
        "groupName": group.name,
        "replicas": group.pods,
        "minReplicas": group.pods,
        "maxReplicas": group.pods,
        "rayStartParams": _store(),
        **({"resources": custom} if custom else {}),
        "labels": {**_labels(group), GROUP_LABEL: group.name},
        "template": {"spec": _pod(name, container, target) | (_on_gpus(group, target) if group.room.gpus else {})},
    }


def _labels(group: Group) -> dict[str, str]:
    """Labels that satisfy what the group's replicas ask of their nodes; what they must not be, these are not."""
    asked = {key: rule for key, rule in group.labels.items() if not rule.startswith("!")}
    return {key: rule.removeprefix("in(").split(",")[0].rstrip(")") for key, rule in asked.items()}


def _limits(room: Amounts, target: Target) -> dict[str, str]:
    # One core more than the replicas reserve: Ray's own processes run on GPU pods as well.
    cpus = room.cpus + 1 if room.gpus else room.cpus
    limits = {"cpu": f"{cpus:g}", "memory": _gib(max(target.pod_memory, room.memory + _OVERHEAD))}
    return {**limits, "nvidia.com/gpu": f"{room.gpus:g}"} if room.gpus else limits


def _gib(amount: int) -> str:
    return f"{math.ceil(amount / GIB)}Gi"


def _store() -> dict[str, str]:
    return {"object-store-memory": str(_OBJECT_STORE)}


def _container(name: str, target: Target, amounts: dict[str, str]) -> Object:
    token = {"name": "huggingface", "key": "token", "optional": True}
    return {
        "name": name,
        "image": target.image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": amounts, "limits": amounts},
        "env": [
            {"name": "HF_HOME", "value": "/models"},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "configuration", "mountPath": CONFIGURATION_FOLDER, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "models", "mountPath": "/models"},
            *([{"name": "data", "mountPath": DATA_FOLDER}] if target.data_claim else []),
        ],
    }


def _pod(name: str, container: Object, target: Target) -> Object:
    data = {"name": "data", "persistentVolumeClaim": {"claimName": target.data_claim}}
    return {
        # Answers under way get two minutes to end.
        "terminationGracePeriodSeconds": 120,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _GROUP,
            "fsGroup": _GROUP,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "configuration", "configMap": {"name": name}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": _gib(2 * _OBJECT_STORE)}},
            {"name": "models", "emptyDir": {}},
            *([data] if target.data_claim else []),
        ],
    }


def _on_gpus(group: Group, target: Target) -> Object:
    selector = {
        **target.gpu_node_selectors.get("", {}),
        **target.gpu_node_selectors.get(group.accelerator_type or "", {}),
    }
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"tolerations": tolerations, **({"nodeSelector": selector} if selector else {})}


def _alive() -> Object:
    return _probe("/api/healthz", _AGENT_PORT, delay=30, failures=120)


def _probe(path: str, port: int, *, delay: int, failures: int) -> Object:
    """Values and paths are those KubeRay gives to Ray 2.53 and later."""
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": delay,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
