"""The documents do what they say: their code runs, prints what they print, and their lists are complete.

Blocks marked ``python`` and ``bash`` are run as they stand, as files of their own; ``sh`` is only for reading.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml

from cluster.cli import main
from cluster.config import ZOO, load
from cluster.plan import plan
from ensemble.method import methods
from tests.documents import ROOT, Block, blocks, read

if TYPE_CHECKING:
    from tests.conftest import Service


def printed_by(block: Block, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a ``python`` or ``bash`` block prints; a failure fails the test with what it said."""
    script = folder / f"block.{block.language}"
    script.write_text(block.code, encoding="utf-8")
    command = [sys.executable, str(script)] if block.language == "python" else ["bash", "-eu", str(script)]
    # Commands of this environment, wherever the tests were started from.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, **(environment or {})}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PYTHON = blocks("README.md", "python")
SHELL = blocks("README.md", "bash")
PLUG_IN, TRIAL, ROUTER, ENGINE = blocks("CONTRIBUTING.md", "python")
OURS = {name: method for name, method in methods().items() if method.__module__.startswith("ensemble.")}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.title)
def test_python_examples_print_what_the_readme_says(block: Block, service: Service, tmp_path: Path) -> None:
    assert block.printed is not None
    assert printed_by(block, tmp_path, {"URL": service.url}) == block.printed


@pytest.mark.parametrize("document", ["docs/outcomes.md", "ensemble/zoo/README.md"])
def test_python_examples_elsewhere_run_too(document: str, tmp_path: Path) -> None:
    for block in blocks(document, "python"):
        assert block.printed is not None
        assert printed_by(block, tmp_path) == block.printed


@pytest.mark.slow
def test_the_batch_job_in_the_documents_answers(tmp_path: Path) -> None:
    """On a cluster of its own."""
    (block,) = blocks("docs/batch.md", "python")
    (tmp_path / "questions.jsonl").write_text('{"question": "47+38="}\n', encoding="utf-8")
    printed_by(block, tmp_path)
    assert parquet.read_table(tmp_path / "answers")["text"].to_pylist() == ["85"]


@pytest.mark.parametrize(
    ("block", "expected"),
    list(zip(SHELL, ['"content":"Rome"', "enots"], strict=True)),
    ids=lambda value: getattr(value, "title", value),
)
def test_shell_examples_answer(block: Block, expected: str, service: Service, tmp_path: Path) -> None:
    assert expected in printed_by(block, tmp_path, {"URL": service.url})


def test_the_configuration_resolves_to_what_its_comments_say() -> None:
    _, first = blocks("README.md", "yaml")
    resolved = plan(load(first.code))
    assert {d.name: d.replicas for d in resolved.deployments} == {
        "adder": 1,
        "words": 2,
        "zoo-gac": 1,
        "gateway": 1,
    }
    assert resolved.ensembles["zoo-gac"]["caps"]["max_tokens"] == 256


@pytest.mark.parametrize("document", ["README.md", "docs/methods/README.md"])
def test_tables_of_methods_are_complete(document: str) -> None:
    row = r"^\| [`\[]+(\w+)[`\]].*?\| ([\w/]+) \|.*?\]\(https://(?:arxiv\.org/abs/)?([^)]+)\)"
    rows = re.findall(row, read(document), re.MULTILINE)
    assert {name: (stage, paper) for name, stage, paper in rows} == {
        name: (method.stage.value, method.paper) for name, method in OURS.items()
    }


@pytest.mark.parametrize("name", OURS)
def test_each_option_is_explained(name: str) -> None:
    _, _, text = read(f"docs/methods/{name}.md").partition("\n## Options\n")
    explained = set(re.findall(r"`(\w+)`", text))
    assert set(OURS[name].Options.model_fields) <= explained


def test_the_table_of_commands_is_complete() -> None:
    listed = set(re.findall(r"^\| `ensemble (\w+)", read("README.md"), re.MULTILINE))
    assert listed == {*main.list_commands(None), "batch"}  # type: ignore[arg-type]


def test_the_demo_serves_the_zoo_as_it_is_packaged() -> None:
    zoo, demo = (yaml.safe_load(path.read_text()) for path in (ZOO, ROOT / "examples" / "demo.yaml"))
    for part in ("models", "judges", "ensembles"):
        assert zoo[part].items() <= demo[part].items()


@pytest.fixture
def plug_ins(tmp_path: Path) -> Path:
    """A folder that holds the methods of CONTRIBUTING.md as an installed distribution."""
    (entry_points,) = blocks("CONTRIBUTING.md", "toml")
    names = re.findall(r'^(\w+) = "', entry_points.code, re.MULTILINE)
    for name, block in zip(names, (PLUG_IN, ROUTER), strict=True):
        (tmp_path / f"{name}.py").write_text(block.code)
    about = tmp_path / "plug_ins-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plug_ins\nVersion: 1\n")
    entries = "".join(f"{name} = {name}\n" for name in names)
    (about / "entry_points.txt").write_text(f"[ray_ensemble.methods]\n{entries}")
    return tmp_path


def test_the_methods_to_copy_are_found_as_plug_ins(plug_ins: Path) -> None:
    assert printed_by(TRIAL, plug_ins, {"PYTHONPATH": str(plug_ins)}) == TRIAL.printed
    listed = printed_by(Block("bash", "ensemble methods --json"), plug_ins, {"PYTHONPATH": str(plug_ins)})
    assert {"first_wins", "steady"} <= {method["name"] for method in json.loads(listed)}


def test_the_router_to_copy_is_fitted(plug_ins: Path) -> None:
    questions = [f"{kind} {number}" for number in range(20) for kind in ("sum of", "capital of")]
    knows, costs = {"adder": "sum", "words": "capital"}, {"adder": 0.001, "words": 0.003}
    rows = [
        {"query_id": q, "text": q, "member": name, "quality": float(q.startswith(knows[name])), "cost": costs[name]}
        for q in questions
        for name in knows
    ]
    parquet.write_table(pa.Table.from_pylist(rows), plug_ins / "outcomes.parquet")
    fit, _ = blocks("CONTRIBUTING.md", "sh")[0].code.splitlines()
    told = printed_by(Block("bash", fit), plug_ins, {"PYTHONPATH": str(plug_ins)})
    assert "method: steady" in told and (plug_ins / "fitted" / "steady" / "manifest.json").is_file()


def test_the_engine_test_to_copy_passes(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(ENGINE.code)
    told = printed_by(
        Block("bash", f"python -m pytest -c {ROOT}/pyproject.toml -p no:cacheprovider {tmp_path}"), tmp_path
    )
    assert " passed" in told and "failed" not in told
