"""Where the replicas of a deployment go, in Ray's words. Knows no configuration and no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util import placement_group_table

from ensemble.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What one replica reserves, and on which nodes.

    >>> Placement(amounts={"CPU": 1, "GPU": 2}).options()
    {'ray_actor_options': {'num_cpus': 1, 'num_gpus': 2, 'resources': {}}}
    """

    amounts: Mapping[str, float] = field(default_factory=dict)
    """Of one piece, by Ray's names: ``CPU``, ``GPU``, ``memory`` in bytes, and any other resource."""
    pieces: int = 1
    """Equal pieces of a replica, each on one node, and close together where there is room. Two and more are bundles of
    a placement group. The replica's actor has all of the first but its GPUs: those, and the other pieces, are for the
    workers that it starts."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Selector by label that every node has to satisfy."""
    prefer: Mapping[str, str] = field(default_factory=dict)
    """Further labels of the nodes to try first; others are taken where these have no room or are gone. Ray cannot
    prefer nodes for bundles, so it has no effect on replicas of more than one piece."""
    per_node: int | None = None
    """Most replicas on one node; ``None``: any number. No effect on replicas of more than one piece either."""
    spare: bool = False
    """There is room for one replica more than there are: a new version comes up before the old one goes. Without, Serve
    stops a replica before it starts the next, as the new one would wait for ever for what the old one holds."""

    def options(self) -> dict[str, Any]:
        """Arguments of ``serve.deployment``."""
        # Of any number of replicas one percent, rounded up, is one.
        surge = {"max_surge_percent": 1} if self.spare else {}
        if self.pieces > 1:
            return {"ray_actor_options": {**self._actor(), "num_gpus": 0}, **self._bundles(), **surge}
        limit = surge if self.per_node is None else {**surge, "max_replicas_per_node": self.per_node}
        return {"ray_actor_options": {**self._actor(), **self._selectors()}, **limit}

    def _actor(self) -> dict[str, Any]:
        custom = {name: amount for name, amount in self.amounts.items() if name not in ("CPU", "GPU", "memory")}
        actor = {"num_cpus": self.amounts.get("CPU", 0), "num_gpus": self.amounts.get("GPU", 0), "resources": custom}
        return {**actor, "memory": self.amounts["memory"]} if "memory" in self.amounts else actor

    def _bundles(self) -> dict[str, Any]:
        bundle = {name: amount for name, amount in self.amounts.items() if amount}
        options: dict[str, Any] = {
            "placement_group_bundles": [dict(bundle) for _ in range(self.pieces)],
            "placement_group_strategy": "PACK",
        }
        if self.labels:
            options["placement_group_bundle_label_selector"] = [dict(self.labels) for _ in range(self.pieces)]
        return options

    def _selectors(self) -> dict[str, Any]:
        if self.prefer:
            fallback = [{"label_selector": dict(self.labels)}]
            return {"label_selector": {**self.labels, **self.prefer}, "fallback_strategy": fallback}
        return {"label_selector": dict(self.labels)} if self.labels else {}


def require_whole_groups(size: int) -> None:
    """See to it that every node has a whole number of groups of so many pieces of this replica.

    Ray fills one node after the other, but where a node has not a whole number of groups free, one may be cut in two.

    Raises:
        ConfigurationError: one is.
    """
    table = placement_group_table(ray.util.get_current_placement_group())
    if cut := cut_groups(table["bundles_to_node_id"].values(), size):
        raise ConfigurationError(
            f"a tensor-parallel group of {size} GPUs would be cut in two: of the GPUs that Ray has found for this "
            f"replica {cut} are on a node; leave whole groups free on some nodes"
        )


def cut_groups(nodes: Iterable[str], size: int) -> str:
    """How many pieces lie on each node, if that is not a whole number of groups everywhere; else nothing.

    >>> cut_groups(["a", "a", "b", "b"], 2), cut_groups(["a", "a", "a", "b"], 2)
    ('', '3 and 1')
    """
    counts = Counter(nodes).values()
    return " and ".join(map(str, counts)) if any(count % size for count in counts) else ""


ANYWHERE = Placement()
"""No amounts but Ray's own, on any node."""
