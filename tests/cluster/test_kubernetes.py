from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import ZOO, load, parse
from cluster.controller import WATCHFUL
from cluster.kubernetes import LONGEST_NAME, render, text
from cluster.packing import GIB
from cluster.plan import plan
from cluster.pods import Target
from ensemble.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
EXAMPLES = [ZOO, *sorted(ROOT.joinpath("examples").glob("*.yaml"))]
BATCH = ("zoo-gac", "/data/questions.parquet", "it's here")


def rendered(path: Path = ZOO, target: Target | None = None) -> dict[str, dict[str, Any]]:
    objects = yaml.safe_load_all(text(render(load(path), target, batch=BATCH)))
    return {item["kind"]: item for item in objects}


def pods(item: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = item["spec"].get("rayClusterConfig") or item["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_objects_satisfy_the_resource_definitions(crds, path):
    objects = rendered(path, Target(gpu_node_selectors={"": {"pool": "gpu"}}))
    assert crds.errors(objects["RayService"]) == []
    assert crds.errors(objects["RayJob"]) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("rayClusterConfig", "workerGroupSpecs", 0, "replcas"), 1, "'replcas' was unexpected"),
        (("rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0, "imagee"), "x", "'imagee' was"),
        (("rayClusterConfig", "workerGroupSpecs", 0, "replicas"), "one", "'one' is not of type 'integer'"),
        (("rayClusterConfig", "authOptions", "mode"), "password", "'password' is not one of"),
        (("serveConfigV3",), "x", "'serveConfigV3' was unexpected"),
        (("rayClusterConfig", "workerGroupSpecs", 0, "template", "spec", "containers"), [{}], "'name' is a required"),
    ],
)
def test_a_wrong_field_is_found(crds, path, value, message):
    service = rendered()["RayService"]
    at: Any = service["spec"]
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    assert any(message in error for error in crds.errors(service)), crds.errors(service)


def test_defaults_are_filled_in_before_required_keys_are_looked_for(crds):
    service = copy.deepcopy(rendered()["RayService"])
    del service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"]
    assert crds.errors(service) == []
    del service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["groupName"]
    assert any("'groupName' is a required property" in error for error in crds.errors(service))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_ray_takes_the_serve_configuration_and_it_holds_the_configuration(path):
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(yaml.safe_load(rendered(path)["RayService"]["spec"]["serveConfigV2"]))
    (application,) = schema.applications
    assert application.import_path == "cluster.app:build"
    assert parse(application.args["config"]) == load(path)
    assert (schema.http_options.host, schema.http_options.port) == ("0.0.0.0", 8000)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_config_map_is_a_file_that_loads_to_the_same_configuration(path, tmp_path):
    config_map = rendered(path)["ConfigMap"]
    (tmp_path / "c.yaml").write_text(config_map["data"]["configuration.yaml"])
    assert load(tmp_path / "c.yaml") == load(path)
    assert (config_map["apiVersion"], set(config_map)) == ("v1", {"apiVersion", "kind", "metadata", "data"})
    for kind in ("RayService", "RayJob"):
        for pod in pods(rendered(path)[kind]):
            assert {"name": "configuration", "configMap": {"name": config_map["metadata"]["name"]}} in pod["volumes"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_workers_have_room_for_the_whole_plan(path):
    needed = plan(load(path))
    workers = rendered(path)["RayService"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    limits = [(g["replicas"], g["template"]["spec"]["containers"][0]["resources"]["limits"]) for g in workers]
    assert sum(count * float(limit["cpu"]) for count, limit in limits) >= needed.cpus
    assert sum(count * float(limit.get("nvidia.com/gpu", 0)) for count, limit in limits) >= needed.gpus
    memory = sum(d.replicas * (d.memory or 0) for d in needed.deployments)
    assert sum(count * int(limit["memory"].removesuffix("Gi")) * GIB for count, limit in limits) >= memory


def test_no_replica_is_placed_on_the_head():
    cluster = rendered()["RayService"]["spec"]["rayClusterConfig"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["rayVersion"] == "2.60.0"
    assert cluster["authOptions"] == {"mode": "token"}


def test_group_names_are_unique_labels():
    workers = rendered(ROOT / "examples" / "gpu.yaml")["RayService"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert [group["groupName"] for group in workers] == ["cpu", "gpu-h100"]


@pytest.mark.parametrize("kind", ["RayService", "RayJob"])
def test_pods_run_without_privileges_and_are_probed(kind):
    for pod in pods(rendered()[kind]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["livenessProbe"]["httpGet"]["port"] == 52365
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
        assert mounts["shared-memory"] == "/dev/shm"


def test_workers_are_ready_when_the_proxy_is_only_where_requests_come_in():
    ready = {kind: pods(rendered()[kind])[1]["containers"][0]["readinessProbe"] for kind in ("RayService", "RayJob")}
    assert ready["RayService"]["httpGet"] == {"path": "/-/healthz", "port": 8000}
    assert ready["RayJob"]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_gpu_pods_go_where_their_kind_of_gpu_is():
    selectors = {"": {"pool": "gpu"}, "H100": {"product": "H100"}, "A10G": {"product": "A10G"}}
    service = rendered(ROOT / "examples" / "gpu.yaml", Target(gpu_node_selectors=selectors))["RayService"]
    head, cpu, gpu = pods(service)
    assert gpu["nodeSelector"] == {"pool": "gpu", "product": "H100"}
    assert gpu["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert not {"nodeSelector", "tolerations"} & (head.keys() | cpu.keys())


def test_custom_resources_are_offered_by_the_group_that_needs_them():
    configuration = load("models:\n  a: {source: {zoo: adder}, replicas: 2, resources: {custom: {disk: 1.5}}}\n")
    service = render(configuration)[1]
    resources = {g["groupName"]: g.get("resources") for g in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert resources == {"cpu": None, "cpu-disk": {"disk": "3"}}


def test_deployments_prefer_the_pods_that_are_sized_for_them_and_large_ones_come_first():
    service = rendered(ROOT / "examples" / "gpu.yaml")["RayService"]["spec"]
    groups = {g["labels"]["ray-ensemble/group"] for g in service["rayClusterConfig"]["workerGroupSpecs"]}
    config = yaml.safe_load(service["serveConfigV2"])
    prefer = config["applications"][0]["args"]["prefer"]
    assert {labels["ray-ensemble/group"] for labels in prefer.values()} == groups
    assert prefer.keys() == {d.served_as for d in plan(load(ROOT / "examples" / "gpu.yaml")).deployments}
    assert prefer["gateway"] == {"ray-ensemble/group": "cpu"}
    variables = config["controller_options"]["runtime_env"]["env_vars"]
    assert variables.pop("RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY") == "1" and variables == WATCHFUL


def test_pods_have_the_labels_that_their_replicas_ask_for(crds):
    configuration = load(
        "models:\n"
        "  a: {source: {zoo: adder}, resources: {labels: {disk: 'in(fast, faster)', zone: '!b', kind: spot}}}\n"
    )
    service = render(configuration)[1]
    assert crds.errors(service) == []
    labels = [group["labels"] for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]]
    names = [group.pop("ray-ensemble/group") for group in labels]
    assert {"disk": "fast", "kind": "spot"} in labels and {} in labels
    assert names[0] == "cpu" and names[1].startswith("cpu-disk-in-fast-faster-") and len(names[1]) <= 40


def test_a_batch_adds_a_job_that_ends_with_its_cluster():
    assert [item["kind"] for item in render(load(ZOO))] == ["ConfigMap", "RayService"]
    job = rendered()["RayJob"]
    file = "/etc/ray-ensemble/configuration.yaml"
    arguments = """zoo-gac /data/questions.parquet 'it'"'"'s here'"""
    assert job["spec"]["entrypoint"] == f"ensemble batch {file} --address auto {arguments}"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def test_the_data_of_a_batch_is_a_volume_of_its_pods_alone():
    objects = rendered(ZOO, Target(data_claim="questions"))
    for pod in pods(objects["RayJob"]):
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "questions"}} in pod["volumes"]
        assert {"name": "data", "mountPath": "/data"} in pod["containers"][0]["volumeMounts"]
    assert all(volume["name"] != "data" for pod in pods(objects["RayService"]) for volume in pod["volumes"])


def test_image_and_namespace_are_everywhere():
    objects = rendered(ZOO, Target(image="registry/e:1", namespace="models"))
    assert {item["metadata"]["namespace"] for item in objects.values()} == {"models"}
    images = {c["image"] for kind in ("RayService", "RayJob") for p in pods(objects[kind]) for c in p["containers"]}
    assert images == {"registry/e:1"}


@pytest.mark.parametrize("name", ["4ever", "x" * (LONGEST_NAME - len("-batch") + 1)])
def test_names_that_kubernetes_would_refuse(name):
    configuration = load(f"name: {name}\nmodels:\n  a: {{source: {{zoo: adder}}}}\n")
    with pytest.raises(ConfigurationError, match="cannot name Kubernetes objects; allowed: a letter first"):
        render(configuration)


def test_dots_in_a_name_become_hyphens_for_kubernetes_alone():
    configuration = load("name: my.app_1\nmodels:\n  a: {source: {zoo: adder}}\n")
    service = render(configuration)[1]
    assert service["metadata"]["name"] == "my-app-1"
    assert "name: my.app_1" in service["spec"]["serveConfigV2"]


@pytest.mark.parametrize(
    "path", sorted(ROOT.joinpath("k8s").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_the_rendered_examples_are_up_to_date(path):
    source = ZOO if path.parent.name == "zoo" else ROOT / "examples" / f"{path.parent.name}.yaml"
    options = yaml.safe_load((ROOT / "k8s" / "rendered.yaml").read_text())[path.parent.name]
    objects = render(load(source), Target(**options.get("target", {})), batch=options.get("batch", ()))
    assert path.read_text() == text([next(item for item in objects if item["kind"].lower() == path.stem)])
