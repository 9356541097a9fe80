"""Where replicas really are, on a cluster of several nodes. Its GPUs are logical: Ray counts them, there are none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import ray
from click.testing import CliRunner
from ray import serve
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster import census, cli, local
from cluster.admission import admitted
from cluster.app import placement
from cluster.config import Configuration, load
from cluster.placing import Unplaceable
from cluster.plan import Deployment, plan
from deployments.placement import require_whole_groups
from tests.conftest import free_port

PLACED = """
name: placed
models:
  whole: {source: {random: {architecture: llama}}, replicas: 2, resources: {cpus: 0.5, gpus: 1, accelerator_type: H100}}
  half: {source: {random: {architecture: llama}}, resources: {cpus: 0.5, gpus: 0.5}}
  other-half: {source: {random: {architecture: llama, seed: 1}}, resources: {cpus: 0.5, gpus: 0.5}}
ensembles:
  both: {method: gac, members: [half, other-half], replicas: 2}
"""


class Spot(NamedTuple):
    """Where a replica is."""

    node: str
    gpus: tuple[str, ...]
    """Those that its process may see."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Names of the nodes by id: two GPUs on each of h1, h2, a1 and a2, two cores on cpu, nothing on the head."""
    assert not ray.is_initialized(), "these tests bring up a cluster of their own, before those on the common one"
    folder = tempfile.mkdtemp(prefix="ray-")
    # Elsewhere than usual: whoever starts Ray here at the same time would take this cluster for one to join.
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        names = {started.head_node.node_id: "head"}
        names[started.add_node(num_cpus=2, labels={"disk": "fast"}).node_id] = "cpu"
        for name, kind in (("h1", "H100"), ("h2", "H100"), ("a1", "A10G"), ("a2", "A10G")):
            # What Ray finds out by itself where there are GPUs.
            found: dict[str, Any] = {"resources": {f"accelerator_type:{kind}": 1}}
            names[started.add_node(num_cpus=4, num_gpus=2, **found).node_id] = name
        ray.init(started.address, logging_level="warning", log_to_driver=False)
        yield names
    finally:
        ray.shutdown()
        started.shutdown()
        os.environ.pop("RAY_TMPDIR") if before is None else os.environ.update(RAY_TMPDIR=before)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    return load(PLACED)


@pytest.fixture(scope="module")
def url(nodes: dict[str, str], configuration: Configuration) -> str:
    return local.start(configuration, address="auto", port=free_port())


@pytest.fixture(scope="module")
def spots(url: str, nodes: dict[str, str]) -> dict[str, list[Spot]]:
    return {name: where(name, "placed", nodes) for name in serve.status().applications["placed"].deployments}


def where(deployment: str, application: str, nodes: dict[str, str]) -> list[Spot]:
    """Each replica's own answer."""

    def told(_: Any) -> tuple[str, tuple[str, ...]]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ""
        return ray.get_runtime_context().get_node_id(), tuple(visible.split(",")) if visible else ()

    names = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["name"].startswith(f"SERVE_REPLICA::{application}#{deployment}#")
    ]
    answers = ray.get([ray.get_actor(name, namespace="serve").__ray_call__.remote(told) for name in names], timeout=30)
    return [Spot(nodes[node], gpus) for node, gpus in answers]


def test_each_model_has_gpus_of_its_own(spots):
    whole = spots["model-whole"]
    taken = [(spot.node, gpu) for spot in whole for gpu in spot.gpus]
    assert len(whole) == 2 and len(taken) == len(set(taken)) == 2
    halves = [*spots["model-half"], *spots["model-other-half"]]
    assert halves and not {(spot.node, gpu) for spot in halves for gpu in spot.gpus} & set(taken)


def test_fractions_are_side_by_side_on_one_gpu(spots):
    (half,), (other,) = spots["model-half"], spots["model-other-half"]
    assert half == other and len(half.gpus) == 1


def test_the_kind_of_gpu_is_honoured_and_replicas_of_one_model_are_apart(spots):
    assert sorted(spot.node for spot in spots["model-whole"]) == ["h1", "h2"]


def test_what_needs_no_gpu_leaves_the_cpus_of_gpu_nodes_alone(spots):
    assert {spot.node for name in ("ensemble-both", "gateway") for spot in spots[name]} == {"cpu"}
    assert len(spots["ensemble-both"]) == 2


def test_members_on_several_nodes_answer_as_one(url):
    asked = {"model": "both", "messages": [{"role": "user", "content": "go"}], "max_tokens": 4}
    reply = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["completion_tokens"] >= 4


def test_what_runs_counts_as_free_for_itself_and_stays_where_it_is(spots, configuration):
    free, own = census.nodes(), census.nodes("placed")
    total = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    assert sum(node.free.get("GPU", 0) for node in free) == 8 - 3
    for node in own:
        for name in ("CPU", "GPU"):
            assert node.free.get(name, 0) == pytest.approx(total[node.id].get(name, 0))
    places = census.places("placed")
    seats = admitted(configuration, own, places)
    assert {name: set(labels["ray.io/node-id"][3:-1].split(", ")) for name, labels in seats.prefer.items()} == {
        name: set(ids) for name, ids in places.items()
    }
    assert seats.per_node == {"model-whole": 1}


class Stage:
    """Tells where it is."""

    def spot(self) -> tuple[str, list[str]]:
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_accelerator_ids()["GPU"]


class Stages:
    """Does what vLLM does with the bundles of its replica: a worker with one GPU in each."""

    def __init__(self, group: int) -> None:
        require_whole_groups(group)
        reserved = ray.util.get_current_placement_group()
        places = [PlacementGroupSchedulingStrategy(reserved, i) for i in range(reserved.bundle_count)]
        worker = ray.remote(num_cpus=0, num_gpus=1)(Stage)
        self.workers = [worker.options(scheduling_strategy=place).remote() for place in places]

    async def spots(self) -> list[tuple[str, list[str]]]:
        return [await worker.spot.remote() for worker in self.workers]


def deployed(
    deployment: Deployment, of: type, *arguments: Any, prefer: dict[str, str] | None = None
) -> serve.Application:
    options = placement(deployment, prefer or {}).options()
    return serve.deployment(of, name=deployment.served_as, **options).bind(*arguments)


def test_a_tensor_parallel_group_has_all_its_gpus_on_one_node(spots, nodes):
    # Whole GPUs of their own are left on four nodes, but two on one node only on two of them.
    group = Deployment("group", "model", 1, cpus=0.1, gpus=2)
    serve.run(deployed(group, Stage), name="group", route_prefix=None)
    ((node, gpus),) = where("model-group", "group", nodes)
    serve.delete("group", _blocking=False)
    assert node in ("a1", "a2")
    assert sorted(gpus) == ["0", "1"]


PIPELINE = """
models:
  pipeline:
    source: {path: /weights}
    engine: vllm
    tensor_parallel: 2
    pipeline_parallel: 2
    resources: {cpus: 0.4, accelerator_type: A10G}
"""


def test_stages_of_a_pipeline_are_each_on_one_node(spots, nodes):
    pipeline = next(d for d in plan(load(PIPELINE)).deployments if d.role == "model")
    handle = serve.run(deployed(pipeline, Stages, 2), name="pipeline", route_prefix=None)
    told = handle.spots.remote().result(timeout_s=30)
    taken = census.held("pipeline")
    serve.delete("pipeline", _blocking=False)
    assert sorted((nodes[node], *gpus) for node, gpus in told) == [("a1", "0"), ("a1", "1"), ("a2", "0"), ("a2", "1")]
    assert {nodes[id_]: held["GPU"] for id_, held in taken.items()} == {"a1": 2, "a2": 2}


def test_a_tensor_parallel_group_that_is_cut_in_two_is_refused(spots, nodes):
    # No way to give three GPUs to groups of two: an engine that makes such groups must not start on them.
    apart = Deployment("apart", "model", 1, cpus=0.1, gpus=3, pieces=3)
    with pytest.raises(RuntimeError, match="Failed to update the deployments"):
        serve.run(deployed(apart, Stages, 2), name="apart", route_prefix=None)
    reason = serve.status().applications["apart"].deployments["model-apart"].message
    assert "a tensor-parallel group of 2 GPUs would be cut in two" in reason
    serve.delete("apart", _blocking=False)


def test_a_node_that_is_gone_is_not_waited_for(nodes):
    light = Deployment("light", "model", 1, cpus=0.1)
    gone = {"ray.io/node-id": f"in({'0' * 56})"}
    serve.run(deployed(light, Stage, prefer=gone), name="light", route_prefix=None)
    (spot,) = where("model-light", "light", nodes)
    serve.delete("light", _blocking=False)
    assert spot.node in nodes.values()


def test_labels_are_honoured(nodes):
    light = Deployment("labelled", "model", 3, cpus=0.1, labels={"disk": "in(fast, faster)"})
    serve.run(deployed(light, Stage), name="labelled", route_prefix=None)
    found = {spot.node for spot in where("model-labelled", "labelled", nodes)}
    serve.delete("labelled", _blocking=False)
    assert found == {"cpu"}


IMPOSSIBLE = {
    "{gpus: 4}": "model-a: one replica needs 1 CPU, 4 GPUs on one node; the best of 6, .*, has 2 GPUs free",
    "{gpus: 1, accelerator_type: B200}": "model-a: one replica needs 1 CPU, 1 GPU, a B200 on one .* has no B200 free",
    "{cpus: 64}": "model-a: one replica needs 64 CPUs on one node; the best of 6, .*, has .* CPUs free",
    "{custom: {tape: 1}}": "model-a: one replica needs 1 CPU, 1 of tape on one node; .* has 0 of tape free",
    "{labels: {zone: b}}": "model-a: one replica needs 1 CPU on one node; none of the 6 nodes has the labels zone: b",
    "{cpus: 0.1, gpus: 0.6}, replicas: 9": "there is not room for everything: in all .* 5.4 GPUs are needed",
}


@pytest.mark.parametrize(("resources", "message"), IMPOSSIBLE.items(), ids=IMPOSSIBLE)
def test_what_has_no_place_is_refused_at_once_with_what_is_missing(nodes, resources, message):
    configuration = load(f"name: bad\nmodels:\n  a: {{source: {{zoo: adder}}, resources: {resources}}}\n")
    begun = time.monotonic()
    with pytest.raises(Unplaceable, match=message) as refused:
        local.start(configuration, address="auto")
    assert time.monotonic() - begun < 5
    assert "ensemble serve --wait SECONDS" in refused.value.message
    assert "bad" not in serve.status().applications


def test_check_compares_a_file_with_the_nodes(nodes, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("models:\n  a: {source: {zoo: adder}, resources: {gpus: 2, accelerator_type: A10G}}\n")
    fits = CliRunner().invoke(cli.main, ["check", str(file), "--cluster", "auto", "--json"])
    assert fits.exit_code == 0, fits.stderr
    places = json.loads(fits.stdout)["places"]
    assert [nodes[id_] for id_ in places["gateway"]] == ["cpu"]
    assert nodes[places["model-a"][0]] in ("a1", "a2")
    file.write_text("models:\n  a: {source: {zoo: adder}, resources: {gpus: 2, accelerator_type: H200}}\n")
    refused = CliRunner().invoke(cli.main, ["check", str(file), "--cluster", "auto"])
    assert refused.exit_code == 1
    assert "model-a: one replica needs 1 CPU, 2 GPUs, an H200 on one node" in refused.stderr


def test_what_waits_in_vain_is_told(spots):
    more = load(PLACED.replace("models:", "models:\n  huge: {source: {zoo: adder}, resources: {gpus: 3}}", 1))
    told: list[dict[str, str]] = []
    with pytest.raises(Unplaceable, match=r"have waited 3 seconds for a node in vain; model-huge: .* has 2 GPUs free"):
        local.start(more, address="auto", wait=3, progress=lambda states: told.append(dict(states)))
    assert told[-1]["model-huge"] == "1 waiting for a node"
