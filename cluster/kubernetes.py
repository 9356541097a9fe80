"""A configuration as Kubernetes objects: a ConfigMap, a RayService that serves it, and a RayJob for a batch.

The objects are plain values for KubeRay's ``ray.io/v1`` kinds; nothing here talks to a cluster. The pods run
an image that holds this package.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from cluster import pods
from cluster.controller import WATCHFUL
from cluster.packing import Group, groups
from cluster.plan import plan
from cluster.pods import CONFIGURATION_FILE, CONFIGURATION_FOLDER, GROUP_LABEL, SERVE_PORT, Object, Target
from cluster.schema import Configuration
from ensemble.errors import ConfigurationError

RAY_VERSION = "2.60.0"
_PACKED = {"RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY": "1"}
"""Large replicas first, and small ones close together: spread, they would take the places of large ones."""
IMPORT_PATH = "cluster.app:build"
LONGEST_NAME = 47
"""KubeRay refuses longer names of RayServices and RayJobs, as it appends to them."""


def render(configuration: Configuration, target: Target | None = None, *, batch: Sequence[str] = ()) -> list[Object]:
    """The objects to apply, in order.

    Args:
        batch: arguments of ``ensemble batch`` but the configuration; if there are any, a RayJob that runs it is added.

    Raises:
        ConfigurationError: the application's name cannot be used in Kubernetes.
    """
    where = target or Target()
    name = _name(configuration)
    # Only a batch reads and writes files.
    objects = [_config_map(name, configuration, where), _service(name, configuration, replace(where, data_claim=None))]
    return [*objects, _job(name, configuration, where, batch)] if batch else objects


def text(objects: Sequence[Object]) -> str:
    """The objects as one YAML file of several documents."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block and repeats values instead of referring to them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _block)


def _name(configuration: Configuration) -> str:
    name = re.sub(r"[^a-z0-9-]", "-", configuration.name).strip("-")
    if len(name) + len("-batch") > LONGEST_NAME or not name[0].isalpha():
        raise ConfigurationError(
            f"name: {configuration.name!r} cannot name Kubernetes objects; allowed: a letter first, and at most "
            f"{LONGEST_NAME - len('-batch')} characters",
            param="name",
        )
    return name


def _metadata(name: str, app: str, target: Target) -> Object:
    labels = {"app.kubernetes.io/name": "ray-ensemble", "app.kubernetes.io/instance": app}
    return {"name": name, "namespace": target.namespace, "labels": labels}


def _written(configuration: Configuration) -> str:
    return yaml.dump(configuration.as_dict(), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _config_map(name: str, configuration: Configuration, target: Target) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(name, name, target),
        "data": {CONFIGURATION_FILE: _written(configuration)},
    }


def _service(name: str, configuration: Configuration, target: Target) -> Object:
    made = _groups(configuration, target)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": _metadata(name, name, target),
        "spec": {
            "upgradeStrategy": {"type": "NewCluster"},
            "rayClusterDeletionDelaySeconds": 120,
            # The head holds no replicas, so requests go to the workers alone.
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": _serve_config(configuration, made),
            "rayClusterConfig": _cluster(name, made, target, serving=True),
        },
    }


def _groups(configuration: Configuration, target: Target) -> list[Group]:
    return groups(plan(configuration).deployments, pod_cpus=target.pod_cpus)


def _serve_config(configuration: Configuration, made: Sequence[Group]) -> str:
    prefer = {deployment: {GROUP_LABEL: group.name} for group in made for deployment in group.holds}
    application = {
        "name": configuration.name,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": {"config": configuration.as_dict(), "prefer": prefer},
    }
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},
        "controller_options": {"runtime_env": {"env_vars": {**_PACKED, **WATCHFUL}}},
        "applications": [application],
    }
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _job(name: str, configuration: Configuration, target: Target, arguments: Sequence[str]) -> Object:
    file = f"{CONFIGURATION_FOLDER}/{CONFIGURATION_FILE}"
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(f"{name}-batch", name, target),
        "spec": {
            "entrypoint": shlex.join(["ensemble", "batch", file, "--address", "auto", *arguments]),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 3600,
            "backoffLimit": 2,
            "rayClusterSpec": _cluster(name, _groups(configuration, target), target, serving=False),
        },
    }


def _cluster(name: str, made: Sequence[Group], target: Target, *, serving: bool) -> Object:
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "headGroupSpec": pods.head(name, target),
        "workerGroupSpecs": [pods.workers(name, group, target, serving=serving) for group in made],
    }
