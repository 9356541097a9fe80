"""What is installed from a wheel works without the repository around it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensemble.zoo import MEMBERS

ROOT = Path(__file__).parents[1]
PACKAGES = ("ensemble", "deployments", "cluster", "jobs")
COPIED = ("pyproject.toml", "README.md", "LICENSE")
"""What a wheel is made of, beside the packages."""
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}
"""Where they are not called as they are imported."""
BROUGHT = {"grpc": "ray", "pydantic_core": "pydantic", "starlette": "fastapi"}
"""What a dependency is made of and lets be seen through, so that its version is that one's business."""
UNSEEN = {"accelerate", "gguf"}
"""Dependencies that ``transformers`` imports where it is asked to load a model."""
OPTIONAL = {"vllm", "pytest"}
"""Imported where an extra is installed: an engine, and the suites for those who write engines."""


def imported(package: str) -> Iterator[str]:
    """Modules of other distributions that a package imports, anywhere in its code, by the first part of their names."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield (node.module or "").partition(".")[0]


def test_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}  # type: ignore[index]
    names = {name for package in PACKAGES for name in imported(package)} - sys.stdlib_module_names - {*PACKAGES}
    assert {DISTRIBUTIONS.get(name, name) for name in names - OPTIONAL - set(BROUGHT)} | UNSEEN == declared
    assert set(BROUGHT) <= names and set(BROUGHT.values()) <= declared


def test_the_image_is_made_of_what_a_wheel_is_made_of() -> None:
    text = (ROOT / "k8s" / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()}
    assert copied == {*PACKAGES, *COPIED}
    (torch,) = re.findall(r"torch==\S+", text)
    assert f'"{torch}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, as building leaves folders behind that would get into the next wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in COPIED:
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "out"), str(folder)]
    subprocess.run(command, check=True)
    return zipfile.ZipFile(next((folder / "out").glob("*.whl")))


@pytest.mark.slow
def test_a_wheel_holds_all_modules_and_the_models(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    weights = {f"ensemble/zoo/models/{name}/model.safetensors" for name in MEMBERS}
    assert (modules | weights | {"cluster/zoo.yaml", "ensemble/zoo/README.md"}) - held == set()
    assert any(name.endswith("LICENSE") for name in held)


@pytest.mark.slow
def test_its_command_reads_the_packaged_models_configuration(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import cluster.cli; assert cluster.__file__.startswith(sys.path[0])\n"
        "cluster.cli.main(['check', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert '"zoo-gac"' in done.stdout
