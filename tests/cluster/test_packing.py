from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.config import load
from cluster.packing import GIB, groups
from cluster.plan import Deployment, plan

DEPLOYMENTS = st.lists(
    st.builds(
        Deployment,
        name=st.uuids().map(str),
        role=st.just("model"),
        replicas=st.integers(1, 4),
        cpus=st.sampled_from([0.1, 0.25, 1.0, 3.0, 12.0]),
        gpus=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
        memory=st.sampled_from([None, GIB, 3 * GIB]),
        custom=st.sampled_from([{}, {"disk": 2.0}]),
    ),
    min_size=1,
    max_size=6,
)


@given(DEPLOYMENTS)
def test_groups_have_room_for_every_replica(deployments):
    made = groups(deployments, pod_cpus=8)
    assert sorted(name for group in made for name in group.holds) == sorted(d.served_as for d in deployments)
    for group in made:
        held = [d for d in deployments if d.served_as in group.holds]
        for d in held:
            assert group.room.cpus >= d.cpus
            assert group.room.gpus >= d.gpus
            assert group.room.memory >= (d.memory or 0)
            assert all(group.room.custom[name] >= value for name, value in d.custom.items())
        assert group.pods * group.room.cpus >= sum(d.replicas * d.cpus for d in held) - 1e-6
        assert group.pods * group.room.gpus >= sum(d.replicas * d.gpus for d in held) - 1e-6
        assert group.pods * group.room.memory >= sum(d.replicas * (d.memory or 0) for d in held)
        assert group.pods <= sum(d.replicas for d in held)


@given(DEPLOYMENTS)
def test_replicas_with_and_without_gpus_never_share_a_group(deployments):
    for group in groups(deployments, pod_cpus=8):
        assert len({d.gpus > 0 for d in deployments if d.served_as in group.holds}) == 1
        assert float(group.room.gpus).is_integer()
        assert float(group.room.cpus).is_integer()


def deployment(name: str, **amounts: object) -> Deployment:
    return Deployment(**{"name": name, "role": "model", "replicas": 1, "cpus": 1.0, **amounts})  # type: ignore[arg-type]


def test_fractions_of_a_gpu_share_one():
    (group,) = groups([deployment("a", gpus=0.5, replicas=3, cpus=2.0)], pod_cpus=8)
    assert (group.pods, group.room.gpus, group.room.cpus) == (2, 1, 4)


def test_ten_tenths_of_a_core_fit_into_one():
    (group,) = groups([deployment("a", cpus=0.1, replicas=10)], pod_cpus=1)
    assert (group.pods, group.room.cpus) == (1, 1)


def test_kinds_of_gpu_and_custom_resources_have_groups_of_their_own():
    made = groups(
        [
            deployment("a", gpus=1.0, accelerator_type="H100"),
            deployment("b", gpus=1.0, accelerator_type="A10G"),
            deployment("c", gpus=1.0, accelerator_type="H100"),
            deployment("d"),
            deployment("e", custom={"disk": 3.0}, replicas=2),
        ],
        pod_cpus=4,
    )
    assert {group.holds: (group.accelerator_type, group.pods) for group in made} == {
        ("model-d",): (None, 1),
        ("model-e",): (None, 1),
        ("model-b",): ("A10G", 1),
        ("model-a", "model-c"): ("H100", 2),
    }
    assert next(group.room.custom for group in made if group.holds == ("model-e",)) == {"disk": 6.0}


def test_the_plan_fills_in_every_default_and_counts():
    made = plan(
        load(
            "models:\n  a: {source: {zoo: adder}, replicas: 3, resources: {cpus: 0.5, gpus: 0.5}}\n"
            "judges:\n  j: {kind: equalities}\n"
            "ensembles:\n  e: {method: le_mcts, members: [a], judge: j, options: {depth: 4}, replicas: 2,"
            " caps: {options: {iterations: 30}}}\n"
        )
    )
    assert (made.cpus, made.gpus) == (3 * 0.5 + 2 * 0.25 + 0.25, 1.5)
    assert made.ensembles["e"]["options"]["depth"] == 4
    assert made.ensembles["e"]["options"]["iterations"] == 20
    assert made.ensembles["e"]["caps"]["options"] == {
        "iterations": 30, "children": 16, "depth": 64, "step_tokens": 1024, "workers": 16,
    }  # fmt: skip
    assert made.ensembles["e"]["paper"] == "2412.15797"
    assert made.judges["j"]["options"] == {"neutral": 0.5}
    assert [(d.name, d.role, d.replicas) for d in made.deployments] == [
        ("a", "model", 3),
        ("e", "ensemble", 2),
        ("gateway", "gateway", 1),
    ]


def test_gpus_of_parallel_parts_are_filled_in_and_bundled_by_the_worker():
    made = plan(
        load(
            "models:\n"
            "  one: {source: {path: /w}, engine: vllm, tensor_parallel: 4, resources: {cpus: 2}}\n"
            "  two: {source: {path: /w}, engine: vllm, tensor_parallel: 2, pipeline_parallel: 2, replicas: 3,"
            " resources: {cpus: 2, memory: 4GiB, accelerator_type: H100}}\n"
            "  cpu: {source: {path: /w}, engine: vllm, tensor_parallel: 2, device: cpu}\n"
        )
    )
    one, two, cpu, _ = made.deployments
    assert (one.bundles, one.piece, one.bundle) == (1, {"CPU": 2, "GPU": 4}, {"CPU": 2, "GPU": 4})
    kind = "accelerator_type:H100"
    assert (two.pieces, two.piece) == (2, {"CPU": 1, "GPU": 2, "memory": 2 * GIB, kind: 0.002})
    assert (two.bundles, two.bundle) == (4, {"CPU": 0.5, "GPU": 1, "memory": GIB, kind: 0.001})
    assert (cpu.gpus, made.gpus) == (0, 4 + 3 * 4)


def test_stages_may_be_on_pods_of_their_own():
    (group,) = groups([deployment("a", gpus=8.0, cpus=4.0, pieces=4, replicas=2)], pod_cpus=8)
    assert (group.pods, group.room.gpus, group.room.cpus) == (8, 2, 1)


def test_fractions_that_do_not_fit_on_one_gpu_take_another():
    (group,) = groups([deployment("a", gpus=0.6, replicas=3), deployment("b", gpus=2.0)], pod_cpus=8)
    assert (group.pods, group.room.gpus) == (3, 2)


def test_replicas_that_select_nodes_have_pods_of_their_own():
    made = groups([deployment("a"), deployment("b", labels={"disk": "in(fast, faster)"})], pod_cpus=4)
    assert {group.name: group.holds for group in made} == {
        "cpu": ("model-a",),
        "cpu-disk-in-fast-faster": ("model-b",),
    }
