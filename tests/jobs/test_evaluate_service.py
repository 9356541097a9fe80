"""Both commands against the served configuration, as a user would give them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result

from cluster.cli import main
from cluster.config import parse
from ensemble.zoo.tasks import generate_mixed

TASKS = ("add", "reverse", "capital", "chain")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    items = generate_mixed(48, seed=11, tasks=TASKS)
    rows = ({"q": item.prompt, "a": item.answer, "kind": item.task} for item in items)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(command: str, *arguments: object) -> Result:
    shared = ("--question", "q", "--answer", "a", "--task", "kind", "--grade", "last-line", "--max-tokens", 48)
    given = [command, *map(str, (*arguments, *shared))]
    result = CliRunner().invoke(main, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_members_and_ensembles_of_a_configuration(service: Any, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (service.file, file, "-o", out, "--members", "adder,words,mixed", "--ensembles", "gac,forest,best")
    first = run("evaluate", *arguments)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    systems = {row["system"] for row in rows if row["split"] == "test"}
    assert {"adder", "words", "mixed", "gac", "forest", "best", "oracle", "rerank", "majority vote"} < systems
    assert [row["error"] for row in rows if row["error"]] == []
    # Complementary members: one adds, the other knows words; neither is right on the other's tasks alone.
    summary = {r["system"]: r for r in pq.read_table(out / "summary.parquet").to_pylist() if r["split"] == "test"}
    assert summary["oracle"]["accuracy"] > max(summary[name]["accuracy"] for name in ("adder", "words", "mixed"))
    assert summary["gac"]["accuracy"] > summary["words"]["accuracy"]
    # Two sessions a question, and prices as configured: adder reads at 1 and writes at 2 for a million tokens.
    assert summary["gac"]["calls"] == 2
    priced = [row for row in rows if row["system"] == "adder"]
    assert all(0 < row["cost"] * 10**6 <= 2 * row["tokens"] for row in priced)
    assert all(row["cost"] == Decimal(0) for row in rows if row["system"] == "words")
    assert "against adder, the best member" in first.output or "the best member is" in first.output
    journal = sum(path.stat().st_size for path in (out / "_answers").glob("*.jsonl"))
    assert run("evaluate", *arguments).stdout == first.stdout
    assert sum(path.stat().st_size for path in (out / "_answers").glob("*.jsonl")) == journal


def test_the_same_by_url_and_under_a_budget(service: Any, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (service.url, file, "-o", out, "--ensembles", "gac", "--questions", 16, "--budget", "tokens=40")
    run("evaluate", *arguments)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    assert {row["system"] for row in rows if row["kind"] in ("member", "ensemble")} == {"adder", "words", "gac"}
    assert [row["error"] for row in rows if row["error"]] == []
    spent = {(row["row"], row["system"]): row["tokens"] for row in rows if row["split"] == "test"}
    votes = [(row["row"], row["tokens"]) for row in rows if row["kind"] in ("vote", "rerank")]
    assert all(tokens <= max(40, spent[row, "gac"]) for row, tokens in votes)


def test_tuning_a_served_ensemble(service: Any, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        *("tune", service.file, file, "-o", out, "--method", "gac", "--members", "adder,words"),
        *("--grid", "threshold=.6,.9", "--budget", "questions=60"),
    )
    chosen = yaml.safe_load((out / "chosen.yaml").read_text())["ensembles"]
    assert set(chosen["tuned"]["members"]) <= {"adder", "words"}
    data = service.configuration.as_dict()
    data["ensembles"] |= chosen
    assert parse(data).ensembles["tuned"].options["threshold"] in (0.6, 0.9)
    summary = {r["system"]: r for r in pq.read_table(out / "summary.parquet").to_pylist() if r["split"] == "test"}
    assert set(summary) == {"adder", "words", "untuned", "tuned"}
    assert all(row["questions"] == 24 and row["errors"] == 0 for row in summary.values())
