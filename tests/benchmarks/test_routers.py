"""The comparison of routers: on drawn tables; and, where ENSEMBLE_DATA names a folder of real ones, against what plain
methods reach on them."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ensemble.errors import BadRequest
from ensemble.outcomes.references import references
from ensemble.outcomes.table import Outcomes
from jobs.evaluation.routers.comparison import routers as known
from jobs.evaluation.routers.divisions import Division

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("ENSEMBLE_DATA")


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Values with postponed annotations look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


routers = benchmark("routers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of members on 200 queries of two tasks, as one of the sets."""
    folder = tmp_path_factory.mktemp("data")
    random, n = np.random.default_rng(0), 200
    task = np.arange(n) % 2
    strong, weak = random.random(n) < 0.75, random.random(n) < np.where(task, 0.9, 0.2)
    cells = {
        "query_id": [f"q{row}" for row in range(n)] * 2,
        "member": ["strong"] * n + ["weak"] * n,
        "quality": np.concatenate([strong, weak]).astype(float),
        "cost": [0.01] * n + [0.001] * n,
    }
    queries = {"query_id": [f"q{row}" for row in range(n)], "task": [f"task {t}" for t in task]}
    features = np.eye(4, dtype=np.float32)[task]
    Outcomes.of(pa.table(cells), pa.table(queries), features=features).write(folder / "routerarena_pair")
    return folder


def known_set(name: str) -> Any:
    return next(of for of in routers.SETS if of.name == name)


def last(text: str) -> Any:
    return json.loads(text.splitlines()[-1])


def test_what_is_kept_is_not_fitted_again(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{routers.BEGIN}\nold\n{routers.END}\nafter\n")
    arguments = ["--data", str(data), "--sets", "routerarena_pair:random", "--output", str(tmp_path / "kept")]
    arguments += ["--routers", "knn_router", "--write", str(page)]
    assert routers.main(arguments) == 0
    first = capsys.readouterr().out
    assert routers.main(arguments) == 0
    second = capsys.readouterr().out
    assert "routerarena_pair:random knn_router 0." in first and "routerarena_pair:random knn_router 0." not in second
    assert last(first) == last(second)
    own = last(first)["routerarena_pair:random"]
    assert {"best single", "random", "query oracle", "knn_router"} <= set(own)
    assert own["knn_router"]["saving"] > 0.2 and own["knn_router"]["apgr"] > 0.5
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| knn_router |" in text and "| plain knn | 72.7 |" in text


def test_a_router_that_fails_is_told_and_ends_with_status_1(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known()["knn_router"], "fit", classmethod(lambda *given: 1 / 0))
    arguments = ["--data", str(data), "--sets", "routerarena_pair:random", "--output", str(tmp_path)]
    assert routers.main([*arguments, "--routers", "knn_router"]) == 1
    assert "knn_router was not fitted: failed: ZeroDivisionError" in capsys.readouterr().out


def test_without_data_the_benchmark_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        routers.options(["--data", "nowhere"])
    assert "--data must be a folder of outcome tables" in capsys.readouterr().err


def test_sets_that_are_not_there_are_refused_before_anything_is_fitted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        routers.options(["--data", str(data)])
    assert "does not hold routerbench3:random" in (told := capsys.readouterr().err)
    assert "name some of --sets routerarena_pair:random" in told
    with pytest.raises(SystemExit):
        routers.options(["--data", str(tmp_path), "--sets", "routerarena_pair:random"])
    assert "it holds none of the known sets" in capsys.readouterr().err


def test_sets_are_found_in_a_folder_of_data_of_several_kinds(data: Path, tmp_path: Path) -> None:
    (tmp_path / "routing").symlink_to(data)
    of = known_set("routerarena_pair:random")
    assert len(routers.division(tmp_path, of).test.table) == len(routers.division(data, of).test.table) == 60
    with pytest.raises(BadRequest, match="does not hold routerbench3"):
        routers.division(tmp_path, known_set("routerbench3:random"))


# With real tables

REFERENCES = {
    "routerbench3:random": (2214, 950, 0.8768, 0.6818, 0.9747),
    "alpacaeval2:random": (559, 240, 0.7117, 0.1377, 0.9063),
    "routerarena_pair:random": (566, 243, 0.7231, 0.6266, 0.7610),
    "routerdc7:origin": (5916, 9408, 0.5472, 0.5307, 0.8233),
    "routerdc7:ood": (15343, 3594, 0.5019, 0.4733, 0.7691),
    "routerdc7:random": (14419, 6181, 0.5733, 0.5487, 0.8222),
}
"""Queries fitted to and tested on; best single, random, query oracle."""


def real(name: str) -> Division:
    """A set of the folder that ENSEMBLE_DATA names."""
    if not DATA:
        pytest.skip("ENSEMBLE_DATA names no folder of outcome tables")
    if routers.place(Path(DATA), known_set(name)) is None:
        pytest.skip(f"ENSEMBLE_DATA does not hold the set of {name}")
    found: Division = routers.division(Path(DATA), known_set(name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_divisions_and_references_are_those_of_the_published_baselines(name: str) -> None:
    fit, test = (part.table for part in real(name))
    found = {reference.name: reference.point.quality for reference in references(fit, test)}
    here = (found["best single"], found["random"], found["query oracle"])
    assert (len(fit), len(test)) == REFERENCES[name][:2]
    assert here == pytest.approx(REFERENCES[name][2:], abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_knn_is_no_worse_than_the_reference_knn(name: str) -> None:
    parts = real(name)
    method = known()["knn_router"]
    chosen = method.fit(parts.fit, method.Fit()).predict(parts.test.x).quality.argmax(axis=1)
    reached = parts.test.table.quality[np.arange(len(chosen)), chosen].mean()
    # The smallest set tests on 240 queries, of which one is 0.4 points.
    assert reached >= routers.PLAIN[name].knn - 0.01
