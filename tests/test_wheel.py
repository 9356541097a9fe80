"""What is installed from a wheel works without the repository around it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ensemble.zoo import MEMBERS

ROOT = Path(__file__).parents[1]
PACKAGES = ("ensemble", "deployments", "cluster", "jobs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, as building leaves folders behind that would get into the next wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
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
