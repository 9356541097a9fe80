from __future__ import annotations

import time
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster import placing
from cluster.nodes import Node, Room, matches
from cluster.placing import Unplaceable, place
from cluster.plan import Deployment

H100 = {"accelerator_type:H100": 1.0}


def deployment(name: str, **amounts: Any) -> Deployment:
    return Deployment(**{"name": name, "role": "model", "replicas": 1, "cpus": 0.1, **amounts})


def node(name: str, cpus: float, gpus: float = 0, *, labels: dict[str, str] | None = None, **custom: float) -> Node:
    return Node(name, name, {"CPU": cpus, "GPU": gpus, **custom}, labels or {}, gpus > 0)


NODES = st.lists(
    st.builds(
        lambda cpus, gpus, kind, zone: node("", cpus, gpus, labels=zone, **kind),
        st.sampled_from([0.5, 1.0, 2.0]),
        st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        st.sampled_from([{}, H100]),
        st.sampled_from([{}, {"zone": "a"}]),
    ),
    min_size=1,
    max_size=3,
).map(lambda nodes: [Node(f"n{i}", n.name, n.free, n.labels, n.has_gpus) for i, n in enumerate(nodes)])

DEPLOYMENTS = st.lists(
    st.builds(
        deployment,
        st.just(""),
        replicas=st.integers(1, 2),
        pieces=st.integers(1, 2),
        cpus=st.sampled_from([0.1, 0.5, 1.0]),
        gpus=st.sampled_from([0.0, 0.4, 0.5, 0.6, 1.0, 2.0]),
        accelerator_type=st.sampled_from([None, None, "H100"]),
        labels=st.sampled_from([{}, {}, {"zone": "a"}, {"zone": "!a"}]),
    ),
    min_size=1,
    max_size=3,
).map(lambda found: [deployment(f"d{i}", **{k: getattr(d, k) for k in FIELDS}) for i, d in enumerate(found)])
FIELDS = ("replicas", "pieces", "cpus", "gpus", "accelerator_type", "labels")


def pieces(deployments: list[Deployment]) -> list[Deployment]:
    return [d for d in deployments for _ in range(d.replicas * d.pieces)]


def share(gpus: list[float], wanted: list[float]) -> bool:
    """Whether there is a way to give each its GPUs."""
    if not wanted:
        return True
    first, *rest = wanted
    if first >= 1:
        whole = [i for i, gpu in enumerate(gpus) if gpu == 1][: int(first)]
        return len(whole) == first and share([gpu for i, gpu in enumerate(gpus) if i not in whole], rest)
    return any(share([*gpus[:i], round(g - first, 6), *gpus[i + 1 :]], rest) for i, g in enumerate(gpus) if g >= first)


def holds(node: Node, wanted: list[Deployment]) -> bool:
    """Whether one node has room for all of them."""
    gpus = [1.0] * int(node.free["GPU"]) + [node.free["GPU"] % 1] * (node.free["GPU"] % 1 > 0)
    others = {name for d in wanted for name in d.piece if name != "GPU"}
    return (
        all(matches(node.labels, d.labels) for d in wanted)
        and all(sum(d.piece.get(n, 0) for d in wanted) <= node.free.get(n, 0) + 1e-9 for n in others)
        and share(gpus, sorted((d.piece["GPU"] for d in wanted if "GPU" in d.piece), reverse=True))
    )


def possible(deployments: list[Deployment], nodes: list[Node]) -> bool:
    """By trying every node for every piece."""
    wanted = pieces(deployments)
    for choice in product(nodes, repeat=len(wanted)):
        if all(holds(n, [d for d, at in zip(wanted, choice, strict=True) if at is n]) for n in nodes):
            return True
    return False


@given(DEPLOYMENTS, NODES)
def test_places_are_found_exactly_when_there_are_some(deployments, nodes):
    assume(len(nodes) ** len(pieces(deployments)) <= 3000)
    try:
        places = place(deployments, nodes)
    except Unplaceable:
        assert not possible(deployments, nodes)
        return
    assert places.keys() == {d.served_as for d in deployments}
    put = [(d, id_) for d in deployments for id_ in places[d.served_as]]
    assert len(put) == len(pieces(deployments))
    for n in nodes:
        assert holds(n, [d for d, id_ in put if id_ == n.id])


@given(DEPLOYMENTS, NODES)
def test_another_node_never_makes_places_impossible(deployments, nodes):
    try:
        place(deployments, nodes)
    except Unplaceable:
        return
    assert place(deployments, [*nodes, node("more", 1)])


@given(DEPLOYMENTS, NODES)
def test_what_is_placed_stays_there(deployments, nodes):
    try:
        places = place(deployments, nodes)
    except Unplaceable:
        return
    again = place(deployments, nodes, current=places)
    single = [d.served_as for d in deployments if d.replicas * d.pieces == 1]
    assert {name: again[name] for name in single} == {name: places[name] for name in single}


def test_the_choosy_are_placed_before_the_large():
    nodes = [node("h", 4, 2, **H100), node("a", 4, 2)]
    wanted = [deployment("pair", gpus=2), deployment("h", gpus=1, accelerator_type="H100"), deployment("x", gpus=0.5)]
    places = place(wanted, nodes)
    assert (places["model-pair"], places["model-h"], places["model-x"]) == (("a",), ("h",), ("h",))


def test_what_needs_no_gpu_goes_to_gpu_nodes_only_when_there_is_no_other_room():
    nodes = [node("g", 8, 1), node("c", 1)]
    assert place([deployment("d", cpus=0.5, replicas=2)], nodes) == {"model-d": ("c", "c")}
    assert sorted(place([deployment("d", cpus=0.5, replicas=3)], nodes)["model-d"]) == ["c", "c", "g"]
    assert place([deployment("d")], [node("g", 8, 1)]) == {"model-d": ("g",)}


def test_replicas_are_apart_where_that_leaves_room_for_everything():
    nodes = [node("a", 4, 2), node("b", 4, 2)]
    twins = deployment("twins", gpus=1, replicas=2)
    assert sorted(place([twins], nodes)["model-twins"]) == ["a", "b"]
    places = place([twins, deployment("pair", gpus=2)], nodes)
    assert len(set(places["model-twins"])) == 1


def test_stages_of_one_replica_are_close_together_where_there_is_room():
    nodes = [node("a", 4, 4), node("b", 4, 4)]
    assert len(set(place([deployment("p", gpus=4, pieces=2)], nodes)["model-p"])) == 1
    assert sorted(place([deployment("p", gpus=8, pieces=2)], nodes)["model-p"]) == ["a", "b"]


def test_two_fractions_that_do_not_fit_on_one_gpu_take_two():
    place([deployment("a", gpus=0.6, replicas=2)], [node("n", 4, 2)])
    with pytest.raises(Unplaceable):
        place([deployment("a", gpus=0.6, replicas=3)], [node("n", 4, 2)])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            deployment("d", gpus=3, cpus=2.0),
            "model-d: one replica needs 2 CPUs, 3 GPUs on one node; the best of 2, g, has 2 GPUs free",
        ),
        (
            deployment("d", gpus=1, accelerator_type="H100", cpus=9.0),
            "model-d: one replica needs 9 CPUs, 1 GPU, an H100 on one node; "
            "the best of 2, g, has 8 CPUs and no H100 free",
        ),
        (
            deployment("d", memory=3 * 2**30, cpus=1.0),
            "model-d: one replica needs 1 CPU, 3 GiB of memory on one node; the best of 2, g, has 0 GiB of memory free",
        ),
        (
            deployment("d", gpus=6, pieces=2, cpus=1.0),
            "model-d: one of the 2 stages of a replica needs 0.5 CPUs, 3 GPUs on one node; "
            "the best of 2, g, has 2 GPUs free",
        ),
        (
            deployment("d", labels={"zone": "in(a, b)"}),
            "model-d: one replica needs 0.1 CPUs on one node; none of the 2 nodes has the labels zone: in(a, b)",
        ),
        (
            deployment("d", gpus=1, replicas=3, cpus=1.0),
            "there is not room for everything: in all 3 CPUs, 3 GPUs are needed, and 9 CPUs, 2 GPUs are free on "
            "2 nodes; model-d: one replica needs 1 CPU, 1 GPU on one node, and beside the others the best of 2, g, has "
            "0 GPUs free",
        ),
    ],
)
def test_what_is_missing_is_told(wanted, message):
    with pytest.raises(Unplaceable) as refused:
        place([wanted], [node("g", 8, 2), node("c", 1)])
    assert refused.value.message == message


def test_every_deployment_without_a_place_is_named():
    with pytest.raises(Unplaceable) as refused:
        place([deployment("a", gpus=1), deployment("b"), deployment("c", cpus=9.0)], [node("n", 1)])
    assert [line.split(":")[0] for line in refused.value.message.split("\n")] == ["model-a", "model-c"]


def test_no_nodes_hold_nothing():
    assert place([], []) == {}
    with pytest.raises(Unplaceable, match="none of the 0 nodes"):
        place([deployment("a")], [])


def test_a_search_that_takes_too_long_gives_no_places_and_refuses_nothing(monkeypatch):
    nodes = [node(f"n{i}", 4, 2) for i in range(4)]
    monkeypatch.setattr(placing, "STEPS", 3)
    assert place([deployment(f"d{i}", gpus=1) for i in range(8)], nodes) == {}


def test_a_hundred_replicas_on_fifty_nodes_take_no_time():
    nodes = [node(f"n{i:02}", 8, 4) for i in range(50)]
    wanted = [deployment(f"d{i}", gpus=[1, 2, 4, 0.5][i % 4], replicas=5) for i in range(20)]
    begun = time.process_time()
    places = place(wanted, nodes)
    assert sum(map(len, places.values())) == 100
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("labels", "rule", "satisfied"),
    [
        ({"zone": "a"}, "a", True),
        ({"zone": "a"}, "b", False),
        ({}, "a", False),
        ({"zone": "a"}, "!a", False),
        ({}, "!a", True),
        ({"zone": "b"}, "in(a,b)", True),
        ({"zone": "b"}, "!in(a, b)", False),
        ({}, "!in(a, b)", True),
    ],
)
def test_selectors_mean_what_they_mean_to_ray(labels, rule, satisfied):
    from ray._private.label_utils import validate_label_selector

    assert validate_label_selector({"zone": rule}) is None
    assert matches(labels, {"zone": rule}) is satisfied


def test_which_gpus_are_shared_is_taken_at_its_best():
    assert Room.of({"GPU": 1.5}).gpus == (0.5, 1.0)
    assert Room.of({"GPU": 0.1 * 3 + 0.7}).gpus == (1.0,)
