"""The nodes of the Ray cluster that this process is attached to, and what an application has of them.

Reads Ray's and Serve's state; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray._private.state import available_resources_per_node
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus
from ray.util import placement_group_table

from cluster.nodes import Amounts, Node


class Room(NamedTuple):
    """What a cluster has, and what it has not."""

    nodes: Sequence[Node]
    """With what is free on them."""
    unmet: Sequence[Amounts]
    """What has been asked for and has got no place. What has one counts as taken while its process still starts."""


class Replica(NamedTuple):
    """One replica of a running application."""

    deployment: str
    node: str | None
    """``None``: it waits for a node."""
    holds: Amounts
    stopping: bool = False
    """Whether it will soon hold nothing."""


def nodes(application: str | None = None) -> list[Node]:
    """The nodes that are alive, with what is free on them.

    Args:
        application: what its replicas hold counts as free, as they make room for their successors.
    """
    free = available_resources_per_node()
    own = held(application) if application is not None else {}
    found = []
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        id_, total = node["NodeID"], node["Resources"]
        # What is taken whole is not listed.
        amounts = {name: free.get(id_, {}).get(name, 0.0) + own.get(id_, {}).get(name, 0.0) for name in total}
        found.append(Node(id_, node["NodeManagerAddress"], amounts, node["Labels"], bool(total.get("GPU"))))
    return sorted(found, key=lambda node: node.id)


def room() -> Room:
    """What is free at this moment, and who waits."""
    state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)
    alone = [asked.request for asked in state.pending_resource_requests for _ in range(asked.count)]
    groups = state.pending_gang_resource_requests
    bundles = [part for group in groups for way in group.bundle_selectors for part in way.resource_requests]
    bundles += [part for group in groups for part in group.requests]
    return Room(nodes(), [dict(request.resources_bundle) for request in alone + bundles])


class State(NamedTuple):
    """How far an application has come."""

    status: ApplicationStatus
    message: str
    """Of its deployments, or else its own; empty where all is well."""
    deployments: Mapping[str, str]
    """Status of each deployment, by its name."""


def state(application: str) -> State:
    """Cheap enough to be asked many times a second, which ``serve.status()`` is not: that one (2.60) serializes the
    code of Serve's router once for every deployment.
    """
    found = _get_global_client().get_serve_status(application)
    reasons = [f"{d.name}: {d.message}" for d in found.deployment_statuses if d.message]
    statuses = {d.name: str(d.status.value) for d in found.deployment_statuses}
    return State(found.app_status.status, "\n".join(reasons) or found.app_status.message, statuses)


def replicas(application: str) -> Iterator[Replica]:
    """The replicas of an application, if there is one of that name."""
    client = _get_global_client(raise_if_no_controller_running=False)
    details = client.get_serve_details() if client is not None else {"applications": {}}
    deployments = details["applications"].get(application, {}).get("deployments", {})
    for name, deployment in deployments.items():
        options = deployment["deployment_config"]["ray_actor_options"]
        for replica in deployment["replicas"]:
            yield Replica(name, replica.get("node_id"), _amounts(options), replica["state"] == "STOPPING")


def places(application: str) -> dict[str, list[str]]:
    """Ids of the nodes where the replicas of an application run, one for each, by deployment."""
    found: dict[str, list[str]] = {}
    for replica in replicas(application):
        if replica.node is not None and not replica.stopping:
            found.setdefault(replica.deployment, []).append(replica.node)
    return found


def held(application: str) -> dict[str, Counter[str]]:
    """What an application holds of each node, by the node's id."""
    amounts: dict[str, Counter[str]] = {}
    bundled = set()
    for group in placement_group_table().values():
        owner = _owner(group["name"], application)
        if owner is None or group["state"] != "CREATED":
            continue
        bundled.add(owner)
        for i, node in group["bundles_to_node_id"].items():
            amounts.setdefault(node, Counter()).update(group["bundles"][i])
    for replica in replicas(application):
        if replica.node is not None and replica.deployment not in bundled:
            amounts.setdefault(replica.node, Counter()).update(replica.holds)
    return amounts


def _owner(group: str, application: str) -> str | None:
    """The deployment of the application for whose replica a placement group was made, if it was."""
    parts = group.removeprefix("SERVE_REPLICA::").split("#")
    return parts[1] if len(parts) == 3 and parts[0] == application else None


def _amounts(options: Mapping[str, Any]) -> dict[str, float]:
    """Options of an actor as amounts by Ray's names."""
    amounts = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    return {name: float(v) for name, v in {**amounts, **(options.get("resources") or {})}.items() if v}
