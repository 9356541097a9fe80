"""The stage: a service whose processes can be found and struck, on a cluster of several nodes or on the common one."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster

from cluster import local
from cluster.config import load
from cluster.controller import WATCHFUL
from tests.conftest import free_port
from tests.faults.load import answers, told, wait_for

BACK = {"num_cpus": 4, "resources": {"back": 10}}
"""A node for models."""
QUIET = {"log_level": "WARNING"}


@dataclass(frozen=True)
class Replica:
    """A process of the service."""

    deployment: str
    pid: int
    node: str
    at_work: int
    """Sessions and generations of a model, requests of a driver that are under way there."""
    actor: str


@dataclass
class Stage:
    """The service under test."""

    url: str
    application: str
    file: Path
    cluster: Cluster | None = None
    """``None``: the service is shared, and nodes are not to be touched."""

    def replicas(self, deployment: str) -> list[Replica]:
        """Those that answer, busiest first."""
        found = []
        for actor in _named(f"SERVE_REPLICA::{self.application}#{deployment}#"):
            with suppress(Exception):  # one that is about to start or to go
                found.append(Replica(deployment, *_inside(actor), actor["name"]))
        return sorted(found, key=lambda replica: -replica.at_work)

    def busiest(self, deployment: str) -> Replica:
        """The replica with most work under way; there is one."""
        replicas = self.replicas(deployment)
        assert replicas, f"{deployment} has no replica"
        return replicas[0]

    def tasks(self, deployment: str) -> int:
        """Coroutines that live in all its replicas."""

        def counted(replica: Any) -> int:
            return len(asyncio.all_tasks(replica._replica_impl._user_callable_wrapper._user_code_event_loop))

        found = _named(f"SERVE_REPLICA::{self.application}#{deployment}#")
        handles = [ray.get_actor(actor["name"], namespace=actor["namespace"]) for actor in found]
        counts: list[int] = ray.get([handle.__ray_call__.remote(counted) for handle in handles], timeout=20)
        return sum(counts)

    def processes(self, prefix: str) -> list[int]:
        """Process ids of actors by the beginning of their name: ``SERVE_CONTROLLER``, ``SERVE_PROXY``."""
        found = _named(prefix)
        assert found, f"no actor is named {prefix}…"
        handles = [ray.get_actor(actor["name"], namespace=actor["namespace"]) for actor in found]
        pids: list[int] = ray.get([h.__ray_call__.remote(lambda _: os.getpid()) for h in handles], timeout=20)
        return pids

    def answering(self, *models: str, seconds: float = 90) -> float:
        """Seconds until each of them answers."""
        silent = list(models)

        def all_answer() -> bool:
            silent[:] = [model for model in silent if not answers(self.url, model)]
            return not silent

        took = wait_for(all_answer, seconds)
        assert took is not None, f"{silent} do not answer within {seconds} s: {[told(self.url, m) for m in silent]}"
        return took

    def settled(self, *models: str) -> None:
        """Waits until nothing is missing any more of what the scenario before has struck."""
        assert wait_for(self.ready, 90) is not None, "the service is not whole"
        self.answering(*models)

    def whole(self, deployment: str, replicas: int, seconds: float = 90) -> float:
        """Seconds until it has all its replicas again."""
        took = wait_for(lambda: len(self.replicas(deployment)) == replicas, seconds)
        assert took is not None, f"{deployment} has not {replicas} replicas within {seconds} s"
        return took

    def ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/ready", timeout=20).status_code == 200
        return False


def _inside(actor: dict[str, str]) -> tuple[int, str, int]:
    """A replica's own word on its process, its node, and how much it has under way."""

    def told(replica: Any) -> tuple[int, str, int]:
        served = replica._replica_impl._user_callable_wrapper._callable
        engines = [engine.stats() for engine in getattr(served, "_engines", {}).values()]
        at_work = sum(int(stats["open_sessions"] + stats["running"]) for stats in engines)
        received = getattr(getattr(served, "_reception", None), "running", 0)
        return os.getpid(), ray.get_runtime_context().get_node_id(), at_work or received

    handle = ray.get_actor(actor["name"], namespace=actor["namespace"])
    found: tuple[int, str, int] = ray.get(handle.__ray_call__.remote(told), timeout=10)
    return found


def _named(prefix: str) -> list[dict[str, str]]:
    return [a for a in ray.util.list_named_actors(all_namespaces=True) if a["name"].startswith(prefix)]


@contextmanager
def several_nodes(file: Path) -> Iterator[Stage]:
    """The service on a cluster of three nodes: the head with drivers and door, two with models. All gone in the end."""
    folder = tempfile.mkdtemp(prefix="ray-")
    # Elsewhere than usual: whoever starts Ray here at the same time would take this cluster for one to join.
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 8, "resources": {"front": 10}, "include_dashboard": False},
    )
    try:
        cluster.add_node(**BACK)
        cluster.add_node(**BACK)
        ray.init(cluster.address, logging_level="warning", log_to_driver=False)
        configuration = load(file)
        # On one machine proxies of several nodes would share a port, and take each other's connections with them.
        watched = {"runtime_env": {"env_vars": WATCHFUL}}
        port = {"port": free_port()}
        serve.start(proxy_location="HeadOnly", http_options=port, logging_config=QUIET, controller_options=watched)
        url = local.start(configuration, address="auto")
        yield Stage(url, configuration.name, file, cluster)
    finally:
        ours = psutil.Process().children(recursive=True)
        ray.shutdown()
        cluster.shutdown()
        for process in ours:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        os.environ.pop("RAY_TMPDIR") if before is None else os.environ.update(RAY_TMPDIR=before)
        shutil.rmtree(folder, ignore_errors=True)
