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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from cluster.cli import main
from cluster.config import ZOO, load
from cluster.plan import plan
from ensemble.method import methods

if TYPE_CHECKING:
    from tests.conftest import Service

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    code: str
    printed: str | None = None
    """What the ``text`` block right after it says that it prints."""

    @property
    def title(self) -> str:
        return self.code.lstrip('"').split("\n", 1)[0][:40]


def blocks(document: str, *languages: str) -> list[Block]:
    """A document's blocks in some languages, in order."""
    found = [(match[1], match[2]) for match in _BLOCK.finditer((ROOT / document).read_text(encoding="utf-8"))]
    after = [*found[1:], ("", "")]
    return [
        Block(language, code, printed if kind == "text" else None)
        for (language, code), (kind, printed) in zip(found, after, strict=True)
        if language in languages
    ]


def printed_by(block: Block, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a ``python`` or ``bash`` block prints; a failure fails the test with what it said."""
    script = folder / f"block.{block.language}"
    script.write_text(block.code, encoding="utf-8")
    command = [sys.executable, str(script)] if block.language == "python" else ["bash", "-eu", str(script)]
    # Commands of this environment, wherever the tests were started from.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PYTHON = blocks("README.md", "python")
SHELL = blocks("README.md", "bash")
PLUG_IN, TRIAL, ENGINE = blocks("CONTRIBUTING.md", "python")
OURS = {name: method for name, method in methods().items() if method.__module__.startswith("ensemble.")}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.title)
def test_python_examples_print_what_the_readme_says(block: Block, service: Service, tmp_path: Path) -> None:
    assert block.printed is not None
    assert printed_by(block, tmp_path, {"URL": service.url}) == block.printed


@pytest.mark.parametrize(
    ("block", "expected"),
    list(zip(SHELL, ['"content":"Rome"', "enots"], strict=True)),
    ids=lambda value: getattr(value, "title", value),
)
def test_shell_examples_answer(block: Block, expected: str, service: Service, tmp_path: Path) -> None:
    assert expected in printed_by(block, tmp_path, {"URL": service.url})


def test_the_configuration_resolves_to_what_its_comments_say() -> None:
    (block,) = blocks("README.md", "yaml")
    resolved = plan(load(block.code))
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
    rows = re.findall(row, _text(document), re.MULTILINE)
    assert {name: (stage, paper) for name, stage, paper in rows} == {
        name: (method.stage.value, method.paper) for name, method in OURS.items()
    }


@pytest.mark.parametrize("name", OURS)
def test_each_option_is_explained(name: str) -> None:
    _, _, text = _text(f"docs/methods/{name}.md").partition("\n## Options\n")
    explained = set(re.findall(r"`(\w+)`", text))
    assert set(OURS[name].Options.model_fields) <= explained


def test_the_table_of_commands_is_complete() -> None:
    listed = set(re.findall(r"^\| `ensemble (\w+)", _text("README.md"), re.MULTILINE))
    assert listed == {*main.list_commands(None), "batch"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_links_and_named_files_are_there(document: str) -> None:
    folder = (ROOT / document).parent
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", _text(document))
    named = re.findall(r"`((?:ensemble|deployments|cluster|docs|examples)/[\w./]+\.\w+)`", _text(document))
    missing = [link for link in links if not (folder / link).exists()]
    assert missing + [path for path in named if not (ROOT / path).exists()] == []


def test_the_demo_serves_the_zoo_as_it_is_packaged() -> None:
    zoo, demo = (yaml.safe_load(path.read_text()) for path in (ZOO, ROOT / "examples" / "demo.yaml"))
    for part in ("models", "judges", "ensembles"):
        assert zoo[part].items() <= demo[part].items()


@pytest.fixture
def plug_in(tmp_path: Path) -> Path:
    """A folder that holds the method of CONTRIBUTING.md as an installed distribution."""
    (entry_point,) = blocks("CONTRIBUTING.md", "toml")
    name = re.search(r'^(\w+) = "', entry_point.code, re.MULTILINE)
    assert name is not None
    (tmp_path / f"{name[1]}.py").write_text(PLUG_IN.code)
    about = tmp_path / f"{name[1]}-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name[1]}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[ray_ensemble.methods]\n{name[1]} = {name[1]}\n")
    return tmp_path


def test_the_method_to_copy_is_found_as_a_plug_in_and_works(plug_in: Path) -> None:
    assert printed_by(TRIAL, plug_in, {"PYTHONPATH": str(plug_in)}) == TRIAL.printed
    listed = printed_by(Block("bash", "ensemble methods --json"), plug_in, {"PYTHONPATH": str(plug_in)})
    assert "first_wins" in {method["name"] for method in json.loads(listed)}


def test_the_engine_test_to_copy_passes(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(ENGINE.code)
    told = printed_by(
        Block("bash", f"python -m pytest -c {ROOT}/pyproject.toml -p no:cacheprovider {tmp_path}"), tmp_path
    )
    assert " passed" in told and "failed" not in told


def _text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")
