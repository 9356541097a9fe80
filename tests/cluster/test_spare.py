"""For which deployments there is room for a new replica beside the old one."""

from __future__ import annotations

from cluster.admission import Seats, spare
from cluster.config import parse
from cluster.nodes import Node
from cluster.schema import Configuration

ANYWHERE = Seats({}, {})
RUNNING = {"model-large": ["n"], "model-small": ["n"], "ensemble-pair": ["n"], "gateway": ["n"]}


def configuration() -> Configuration:
    source = {"random": {"architecture": "llama"}}
    return parse(
        {
            "models": {
                "large": {"source": source, "resources": {"cpus": 1, "gpus": 2}},
                "small": {"source": source, "resources": {"cpus": 1, "gpus": 1}},
            },
            "ensembles": {"pair": {"method": "gac", "members": ["large", "small"], "resources": {"cpus": 1}}},
            "gateway": {"resources": {"cpus": 1}},
        }
    )


def node(cpus: float, gpus: float) -> Node:
    return Node("n", "n", {"CPU": cpus, "GPU": gpus}, {}, True)


def found(cpus: float, gpus: float, seats: Seats = ANYWHERE, running: dict[str, list[str]] = RUNNING) -> set[str]:
    return set(spare(configuration(), [node(cpus, gpus)], running, seats))


def test_all_of_them_where_there_is_room_for_all_at_once() -> None:
    assert found(4, 3) == set(RUNNING)


def test_drivers_go_first_where_there_are_no_cards_left() -> None:
    assert found(4, 0) == {"ensemble-pair", "gateway"}


def test_the_smaller_model_where_there_is_not_room_for_both() -> None:
    assert found(4, 2) == {"ensemble-pair", "gateway", "model-small"}


def test_none_where_nothing_is_free() -> None:
    assert found(0, 0) == set()


def test_what_does_not_run_yet_is_placed_first() -> None:
    running = {name: nodes for name, nodes in RUNNING.items() if name != "model-large"}
    assert found(4, 3, running=running) == {"ensemble-pair", "gateway", "model-small"}
    assert found(4, 5, running=running) == {"ensemble-pair", "gateway", "model-small"}, "no fifth core"
    assert found(5, 5, running=running) == set(RUNNING)


def test_not_where_the_number_on_a_node_is_limited() -> None:
    assert "model-large" not in found(4, 3, Seats({}, {"model-large": 1}))
