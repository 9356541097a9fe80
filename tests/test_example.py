"""The examples that fit, serve and compare methods, from nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[1]


FOLDER = ROOT / "examples"
ROWS = 8
"""Of which about half are of the part that ensembles are asked in the comparison."""


@pytest.mark.slow
def test_every_token_level_method_is_fitted_served_compared_and_run_in_batch(tmp_path: Path) -> None:
    command = [sys.executable, "examples/token_level.py", "--questions", "6", "--samples", "1", "--rows", str(ROWS)]
    done = subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = pq.read_table(tmp_path / "report" / "answers.parquet").to_pylist()
    ensembles = yaml.safe_load((FOLDER / "token_level.yaml").read_text())["ensembles"]
    written = {row["system"] for row in answers if row["kind"] == "ensemble"}
    assert written == set(ensembles)
    assert [row for row in answers if row["error"]] == []
    right = {name: [row["right"] for row in answers if row["system"] == name] for name in written}
    # Half of the questions are of one member's kind and half of the other's: neither could be right on more.
    for name in ("gac", "unite", "eva", "deepen", "abe", "byte-level", "etr"):
        assert sum(right[name]) > 0.7 * len(right[name]), name
    assert (tmp_path / "report" / "quality_cost.png").stat().st_size > 10_000
    for name in ensembles:
        batch_answers_as_the_service_does(tmp_path, name, answers)


def batch_answers_as_the_service_does(folder: Path, name: str, answers: Sequence[Mapping[str, Any]]) -> None:
    asked = [json.loads(line)["question"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows = pq.read_table(folder / "batch" / name).to_pylist()
    assert [row["question"] for row in rows] == asked and len(asked) == ROWS
    assert [row["error"] for row in rows] == [None] * ROWS, name
    served = {row["question"]: row["answer"] for row in answers if row["system"] == name}
    both = {row["question"]: row["text"] for row in rows if row["question"] in served}
    assert len(both) > 1 and both == {question: served[question] for question in both}, name


@pytest.mark.slow
def test_routers_are_fitted_to_what_members_can_do_and_served(tmp_path: Path) -> None:
    command = [sys.executable, "examples/routing.py", "--questions", "24", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = pq.read_table(tmp_path / "report" / "answers.parquet").to_pylist()
    assert [row for row in answers if row["error"]] == []
    right: dict[str, list[bool]] = {}
    for row in answers:
        right.setdefault(row["system"], []).append(row["right"])
    share = {name: sum(found) / len(found) for name, found in right.items()}
    assert set(yaml.safe_load((FOLDER / "routing.yaml").read_text())["ensembles"]) <= set(share)
    best = max(share[member] for member in ("adder", "words", "mixed"))
    for name in ("knn", "clusters", "carrot", "routellm", "metallm", "select"):
        assert share[name] > best + 0.1, share
    before, after = (json.loads(scores.replace("'", '"').replace("None", "null")) for scores in taught(done.stdout))
    assert max(after, key=after.__getitem__) == "adder" and before != after


def taught(output: str) -> list[str]:
    """The bandit's scores, before and after feedback."""
    return [line.partition("feedback: ")[2] for line in output.splitlines() if " feedback: " in line]
