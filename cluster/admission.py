"""Whether the nodes of a cluster have room for a configuration, before it is deployed and while it starts.

Works on plans, nodes and replicas as values; reads nothing itself.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cluster.census import Replica, Room
from cluster.nodes import Amounts, Node
from cluster.placing import Unplaceable, place
from cluster.plan import Deployment, plan
from cluster.schema import Configuration

PATIENCE = 10.0
"""Seconds that a replica may be without a node before it is asked whether there is one for it. Ray starts a process for
it in the meantime, and what others have just given back is not free at once."""

ADVICE = "where an autoscaler adds nodes, let it wait for them (`ensemble serve --wait SECONDS`)"

_SMALLEST = 1e-4
"""Ray counts in ten-thousandths."""

_NODE = "ray.io/node-id"
"""Label by which Ray names each node."""


class Seats(NamedTuple):
    """Where the replicas of each deployment should be, by the name it is served under."""

    prefer: dict[str, dict[str, str]]
    """Labels of the nodes to try first."""
    per_node: dict[str, int]
    """Most replicas on one node, for those with GPUs on several nodes: Ray would as soon put them all on one, and take
    places that are meant for others. One such replica is not moved to where another is when its node is lost."""


def admitted(
    configuration: Configuration,
    nodes: Sequence[Node],
    current: Mapping[str, Collection[str]],
    *,
    wait: float | None = None,
) -> Seats:
    """Where the replicas of a configuration should be.

    Args:
        current: ids of the nodes where it runs already, one for each replica.
        wait: whether nodes may be added; then what has no place is no mistake yet, and what runs stays where it is.

    Raises:
        Unplaceable: there is no room; the message says what is missing.
    """
    deployments = plan(configuration).deployments
    try:
        places = place(deployments, nodes, current=current)
    except Unplaceable as error:
        if wait is None:
            raise Unplaceable(f"{error.message}; {ADVICE}") from error
        places = {d.served_as: tuple(current[d.served_as]) for d in deployments if d.served_as in current}
    if len(nodes) == 1:
        return Seats({}, {})
    prefer = {name: {_NODE: f"in({', '.join(sorted(set(ids)))})"} for name, ids in places.items()}
    apart = [d.served_as for d in deployments if d.gpus and d.pieces == 1 and len(set(places.get(d.served_as, ()))) > 1]
    return Seats(prefer, {name: max(Counter(places[name]).values()) for name in apart})


def spare(
    configuration: Configuration, nodes: Sequence[Node], current: Mapping[str, Collection[str]], seats: Seats
) -> list[str]:
    """Deployments of which there is room for one more replica, for all of them at once, by served name.

    Args:
        nodes: with what is free while everything that runs goes on running.
        current: ids of the nodes where it runs already, one for each replica.
    """
    deployments = plan(configuration).deployments
    missing = {d.served_as: d.replicas - len(current.get(d.served_as, ())) for d in deployments}
    found = [replace(d, replicas=missing[d.served_as]) for d in deployments if missing[d.served_as] > 0]
    more: list[str] = []
    for deployment in sorted(deployments, key=lambda d: (d.gpus, d.cpus)):
        one = replace(deployment, replicas=1)
        # Where the number on one node is limited, it may be reached on every node.
        if deployment.served_as not in seats.per_node and _fit([*found, one], nodes):
            found.append(one)
            more.append(deployment.served_as)
    return more


def _fit(deployments: Sequence[Deployment], nodes: Sequence[Node]) -> bool:
    try:
        return bool(place(deployments, nodes))
    except Unplaceable:
        return False


@dataclass
class Patience:
    """Watches replicas that wait for a node, and loses patience with those that wait in vain."""

    deployments: Sequence[Deployment]
    wait: float | None = None
    """Seconds to wait for nodes that are added; ``None``: the nodes that are there have to do."""
    clock: Callable[[], float] = time.monotonic
    _waiting: Counter[str] = field(default_factory=Counter)
    _since: float = 0.0
    _looked: float = float("-inf")

    def look(self, replicas: Callable[[], Iterable[Replica]], room: Callable[[], Room]) -> Mapping[str, str]:
        """States of deployments that wait for nodes to be added, for people; looks no more than once a second.

        Args:
            replicas: called for the replicas of the application.
            room: called for what the cluster has and lacks, when replicas have waited for too long.

        Raises:
            Unplaceable: no node has room for a replica that waits.
        """
        if self.clock() - self._looked >= 1:
            self._looked = self.clock()
            self._count(list(replicas()), room)
        # Where no nodes are added, to be without one for a while is a part of every start.
        waiting = self._waiting if self.wait is not None else {}
        return {name: f"{count} waiting for a node" for name, count in waiting.items()}

    def _count(self, replicas: Sequence[Replica], room: Callable[[], Room]) -> None:
        waiting = Counter(r.deployment for r in replicas if r.node is None and not r.stopping)
        if waiting != self._waiting:
            self._waiting, self._since = waiting, self.clock()
        # A replica that stops makes room for the one that waits.
        if waiting and not any(r.stopping for r in replicas) and self._too_long():
            self._ask(waiting, room())

    def _too_long(self) -> bool:
        return self.clock() - self._since > (PATIENCE if self.wait is None else self.wait)

    def _ask(self, waiting: Counter[str], room: Room) -> None:
        # Of a replica whose process is starting the node is not told yet, though it has its place there.
        short = {d.served_as: min(waiting[d.served_as], _unmet(d, room.unmet)) for d in self.deployments}
        left = [replace(d, replicas=short[d.served_as]) for d in self.deployments if short[d.served_as]]
        self._since = self.clock()
        try:
            place(left, room.nodes)
        except Unplaceable as error:
            seconds = PATIENCE if self.wait is None else self.wait
            raise Unplaceable(
                f"replicas have waited {seconds:g} seconds for a node in vain; {error.message}; {ADVICE}"
            ) from error


def _unmet(deployment: Deployment, unmet: Sequence[Amounts]) -> int:
    """How many requests that have no place may be of this deployment's replicas."""
    wanted = deployment.bundle

    def alike(asked: Amounts) -> bool:
        names = {"CPU", "GPU", *wanted}
        return all(abs(asked.get(name, 0) - wanted.get(name, 0)) < _SMALLEST for name in names)

    return math.ceil(sum(map(alike, unmet)) / deployment.bundles)
