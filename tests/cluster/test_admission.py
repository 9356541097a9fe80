from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.admission import PATIENCE, Patience, admitted
from cluster.census import Replica, Room
from cluster.config import Configuration, load
from cluster.nodes import Amounts, Node
from cluster.placing import Unplaceable
from cluster.plan import plan

PAIR = """
models:
  a: {source: {zoo: adder}, replicas: 2, resources: {cpus: 1, gpus: 1}}
  b: {source: {zoo: words}, resources: {cpus: 1, gpus: 1}}
"""


def node(name: str, cpus: float, gpus: float = 0) -> Node:
    return Node(name, name, {"CPU": cpus, "GPU": gpus}, {}, gpus > 0)


@pytest.fixture
def pair() -> Configuration:
    return load(PAIR)


def test_every_deployment_is_sent_to_its_nodes_and_those_with_gpus_are_kept_apart(pair):
    seats = admitted(pair, [node("g", 4, 2), node("h", 4, 2), node("c", 1)], {})
    assert seats.prefer["gateway"] == {"ray.io/node-id": "in(c)"}
    assert seats.prefer["model-a"] == {"ray.io/node-id": "in(g, h)"}
    assert seats.prefer["model-b"]["ray.io/node-id"] in ("in(g)", "in(h)")
    assert seats.per_node == {"model-a": 1}


def test_what_runs_stays(pair):
    nodes = [node("g", 4, 2), node("h", 4, 2), node("c", 1)]
    seats = admitted(pair, nodes, {"model-a": ["h", "h"], "model-b": ["g"], "gateway": ["g"]})
    assert seats.prefer == {
        "model-a": {"ray.io/node-id": "in(h)"},
        "model-b": {"ray.io/node-id": "in(g)"},
        "gateway": {"ray.io/node-id": "in(g)"},
    }
    assert seats.per_node == {}


def test_one_node_needs_no_preference(pair):
    assert admitted(pair, [node("g", 4, 4)], {}) == ({}, {})


def test_too_few_nodes_are_refused_unless_more_may_come(pair):
    with pytest.raises(Unplaceable, match=r"model-[ab]: .* 0 GPUs free; where an autoscaler adds nodes, let it wait"):
        admitted(pair, [node("g", 4, 2)], {})
    assert admitted(pair, [node("g", 4, 2)], {}, wait=60) == ({}, {})


def test_what_runs_stays_while_the_rest_waits_for_nodes(pair):
    nodes = [node("g", 4, 1), node("h", 4, 1)]
    seats = admitted(pair, nodes, {"model-a": ["g", "h"], "elsewhere": ["g"]}, wait=60)
    assert seats == ({"model-a": {"ray.io/node-id": "in(g, h)"}}, {"model-a": 1})


class Watched:
    """A Patience whose time passes when it is told to."""

    def __init__(self, configuration: Configuration, wait: float | None = None) -> None:
        self.now = 0.0
        self.asked = 0
        self.nodes: list[Node] = []
        self.unmet: list[Amounts] = [plan(configuration).deployments[0].bundle] * 2
        self.patience = Patience(plan(configuration).deployments, wait, clock=lambda: self.now)

    def look(self, *replicas: Replica, after: float = 1.0) -> dict[str, str]:
        self.now += after
        return dict(self.patience.look(lambda: replicas, self._counted))

    def _counted(self) -> Room:
        self.asked += 1
        return Room(self.nodes, self.unmet)


WAITS = Replica("model-a", None, {})
RUNS = Replica("model-b", "g", {"GPU": 1})


def test_nobody_asks_for_nodes_too_early(pair):
    watched = Watched(pair)
    assert watched.look(WAITS, WAITS, RUNS) == {}
    assert watched.look(WAITS, WAITS, RUNS, after=PATIENCE - 1) == {}
    assert watched.asked == 0


def test_what_waits_for_nodes_to_be_added_is_told(pair):
    watched = Watched(pair, wait=60)
    assert watched.look(WAITS, WAITS, RUNS) == {"model-a": "2 waiting for a node"}
    assert watched.look(RUNS) == {}


def test_what_has_room_may_take_its_time(pair):
    watched = Watched(pair)
    watched.nodes = [node("g", 1, 1)]
    for _ in range(4):
        watched.look(WAITS, RUNS, after=PATIENCE + 1)
    assert watched.asked == 3


def test_what_somebody_else_has_taken_is_told(pair):
    watched = Watched(pair)
    watched.nodes = [node("g", 4, 0), node("h", 4, 0.5)]
    watched.look(WAITS, RUNS)
    with pytest.raises(Unplaceable, match=r"waited 10 seconds for a node in vain; model-a: .* has 0 GPUs free"):
        watched.look(WAITS, RUNS, after=PATIENCE + 1)


def test_a_process_that_starts_slowly_has_its_place(pair):
    watched = Watched(pair)
    watched.nodes, watched.unmet = [node("g", 0, 0)], [{"CPU": 7.0}]
    for _ in range(4):
        watched.look(WAITS, RUNS, after=PATIENCE + 1)
    assert watched.asked == 3


def test_each_step_forward_renews_the_patience(pair):
    watched = Watched(pair)
    watched.look(WAITS, WAITS, RUNS)
    watched.look(WAITS, RUNS, after=PATIENCE + 1)
    watched.look(WAITS, RUNS, after=PATIENCE - 1)
    assert watched.asked == 0


def test_a_replica_that_stops_makes_room_first(pair):
    watched = Watched(pair)
    stops = RUNS._replace(stopping=True)
    for _ in range(5):
        watched.look(WAITS, stops, after=PATIENCE + 1)
    assert watched.asked == 0


def test_nodes_that_are_added_are_waited_for_as_long_as_was_said(pair):
    watched = Watched(pair, wait=300)
    watched.look(WAITS)
    watched.look(WAITS, after=299)
    assert watched.asked == 0
    with pytest.raises(Unplaceable, match="waited 300 seconds"):
        watched.look(WAITS, after=2)


def test_looks_are_a_second_apart(pair):
    watched = Watched(pair)
    looked: list[int] = []

    def replicas() -> list[Replica]:
        looked.append(1)
        return []

    nodes: Callable[[], list[Node]] = list
    for _ in range(20):
        watched.now += 0.125
        watched.patience.look(replicas, nodes)
    assert len(looked) == 3
