from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from cluster import cli
from cluster.config import ZOO, ModelConfig

GPU = Path(__file__).parents[2] / "examples" / "gpu.yaml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def test_check_prints_the_plan():
    result = run("check", str(GPU))
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.split("\n")
    assert any("qwen" in line and "Qwen/Qwen2.5-7B-Instruct" in line and "bfloat16" in line for line in lines)
    assert any(
        "fused-fast" in line and "gac (during/token)" in line and "threshold=0.5 topk=20" in line for line in lines
    )
    assert any("reviewed" in line and "fused-fast, small" in line and "reviewer" in line for line in lines)
    assert any(line.split()[:6] == ["qwen", "model", "2", "4", "1", "32"] for line in lines)
    assert "in all 32.5 CPUs and 8.5 GPUs" in result.stdout
    assert any(line.split()[:6] == ["large", "model", "1", "8", "4", "64"] for line in lines)


def test_check_as_json_holds_the_same():
    plan = json.loads(run("check", str(GPU), "--json").stdout)
    assert plan["total"] == {"cpus": 32.5, "gpus": 8.5}
    assert plan["models"]["qwen"]["source"]["hub"] == "Qwen/Qwen2.5-7B-Instruct"
    assert plan["ensembles"]["fused"]["options"]["topk"] == 10
    assert {d["name"]: d["replicas"] for d in plan["deployments"]}["fused"] == 2


def test_check_without_a_file_takes_the_packaged_one():
    assert run("check", "--json").stdout == run("check", str(ZOO), "--json").stdout


def test_check_tells_every_mistake_on_stderr(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("models:\n  a: {source: {zoo: adder}, dtyp: x}\n  b: {}\n")
    result = run("check", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    keys = ModelConfig.model_fields
    assert result.stderr.split("\n")[:2] == [
        f"{file}:2: models.a.dtyp: unknown key, did you mean 'dtype'?; allowed: {', '.join(sorted(keys))}",
        f"{file}:3: models.b.source: the key is missing; it has no default",
    ]


@pytest.mark.parametrize("command", [["check"], ["serve"], ["k8s", "render"]])
def test_a_file_that_is_not_there(command):
    result = run(*command, "nowhere.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "nowhere.yaml: the file cannot be read: No such file or directory\n"


def test_methods_tells_what_each_needs_and_its_defaults():
    line = next(line for line in run("methods").stdout.split("\n") if line.startswith("gac "))
    assert "during/token" in line and "2406.12585" in line and "generate, sessions" in line and "topk=20" in line


def test_methods_as_json():
    described = {m["name"]: m for m in json.loads(run("methods", "--json").stdout)}
    assert {"gac", "unite", "agent_forest", "best_of_n", "le_mcts"} <= described.keys()
    assert described["best_of_n"]["needs"] == ["generate", "judge"]
    assert described["agent_forest"]["caps"] == {"samples": 64}
    assert described["gac"]["options"]["topk"]["default"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "No such command 'chek'"),
        (["check", "--jsn"], "No such option"),
        (["ask", "model"], "Missing argument 'QUESTION'"),
        (["ask", "m", "q", "--max-tokens", "0"], "0 is not in the range"),
        (["ask", "m", "q", "--option", "topk"], "'topk' is not KEY=VALUE"),
        (["ask", "m", "q", "--option", "topk=["], "the value of 'topk' is no YAML"),
        (["serve", "--detach"], "--detach needs --address"),
        (["serve", "--port", "70000"], "70000 is not in the range"),
        (["k8s", "render", "--gpu-node-selector", "pool"], "'pool' is not [TYPE:]LABEL=VALUE"),
        (["k8s", "render", "--gpu-node-selector", ":pool=1"], "':pool=1' is not [TYPE:]LABEL=VALUE"),
    ],
)
def test_what_no_command_takes_is_refused(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_k8s_render_prints_all_objects_as_one_file():
    result = run(
        "k8s", "render", str(GPU), "--image", "e:2", "--gpu-node-selector", "H100:pool=h", "--batch", "fused in"
    )
    config_map, service, job = yaml.safe_load_all(result.stdout)
    assert (config_map["kind"], service["kind"], job["kind"]) == ("ConfigMap", "RayService", "RayJob")
    gpu = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][1]["template"]["spec"]
    assert (gpu["nodeSelector"], gpu["containers"][0]["image"]) == ({"pool": "h"}, "e:2")
    assert job["spec"]["entrypoint"].endswith("configuration.yaml --address auto fused in")


def test_k8s_render_takes_a_claim_for_a_batch_only():
    assert run("k8s", "render", "--data-claim", "questions").exit_code == 2
    objects = yaml.safe_load_all(run("k8s", "render", "--data-claim", "questions", "--batch", "--x").stdout)
    assert "claimName: questions" in yaml.safe_dump(list(objects)[2])


def test_k8s_render_writes_one_file_each(tmp_path):
    result = run("k8s", "render", "--namespace", "llm", "--output", str(tmp_path / "out"))
    written = sorted((tmp_path / "out").iterdir())
    assert result.stdout.split() == [str(path) for path in written]
    objects = [yaml.safe_load(path.read_text()) for path in written]
    assert [(o["kind"], o["metadata"]["namespace"]) for o in objects] == [("ConfigMap", "llm"), ("RayService", "llm")]


def test_a_name_that_kubernetes_refuses_is_told(tmp_path):
    (tmp_path / "c.yaml").write_text("name: 4x\nmodels:\n  a: {source: {zoo: adder}}\n")
    result = run("k8s", "render", str(tmp_path / "c.yaml"))
    assert result.exit_code == 2
    assert "name: '4x' cannot name Kubernetes objects" in result.stderr


@click.command()
def extra() -> None:
    """A command of another distribution."""
    click.echo("here")


def test_other_distributions_add_commands(monkeypatch):
    entry = EntryPoint("extra", f"{__name__}:extra", cli.ENTRY_POINTS)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry] if group == cli.ENTRY_POINTS else [])
    assert run("extra").stdout == "here\n"
    assert "A command of another distribution." in run("--help").stdout


def test_light_commands_import_neither_ray_nor_torch_and_take_little_work():
    program = """
import sys, time
from cluster.cli import main
try:
    main(["methods"])
finally:
    print([name for name in ("ray", "torch", "transformers") if name in sys.modules], time.process_time() < 3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.endswith("[] True\n")


def test_the_installed_command_checks_a_file_without_a_traceback(tmp_path):
    (tmp_path / "c.yaml").write_text("models: [\n")
    command = [str(Path(sys.executable).with_name("ensemble")), "check", str(tmp_path / "c.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path / 'c.yaml'}:2: no valid YAML") and "Traceback" not in done.stderr
