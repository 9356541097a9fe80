"""Both commands against the real API over HTTP, with members whose skills are known, so that the figures are too."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import uvicorn
import yaml
from click.testing import CliRunner, Result

from cluster.cli import main
from deployments.gateway import Served, build_app
from ensemble.ensemble import Ensemble
from ensemble.member import Floats, Member
from ensemble.testing import LocalMember
from ensemble.vocabulary import LongestMatch, Vocabulary

VOCABULARY = Vocabulary((b"", *(bytes([b]) for b in range(1, 128))), frozenset({0}))
COUNT = 48


def skilled(name: str, remainder: int) -> LocalMember:
    """Knows ``qN`` for even or odd N: says ``4`` with probability 0.9 there, else ``5`` with 0.6 and ``4`` with 0.4."""

    def model(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        row = np.full(len(VOCABULARY.tokens), -np.inf)
        if ids:
            row[0] = 0.0
            return row
        knows = int(bytes(prompt).decode()[1:]) % 2 == remainder
        row[ord("4")], row[ord("5")] = np.log([0.9, 0.1] if knows else [0.4, 0.6])
        return row

    return LocalMember(name, LongestMatch(VOCABULARY), model)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    members: dict[str, Member] = {name: skilled(name, i) for i, name in enumerate(("even", "odd"))}
    pair = Ensemble("pair", "gac", list(members.values()))
    forest = Ensemble("forest", "agent_forest", list(members.values()), options={"samples": 4, "temperature": 0.1})
    app = build_app({name: Served.of(member) for name, member in {**members, "pair": pair, "forest": forest}.items()})
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join(5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = ({"question": f"q{i}", "answer": 4, "task": "odd" if i % 2 else "even"} for i in range(COUNT))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_fusing_complementary_members_wins_and_is_told_so(url: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("evaluate", url, file, "-o", out, "--ensembles", "pair", "--task", "task", "--max-tokens", 4)
    summary = {
        row["system"]: row for row in pq.read_table(out / "summary.parquet").to_pylist() if row["split"] == "test"
    }
    assert {
        name: row["accuracy"] for name, row in summary.items() if row["kind"] in ("member", "ensemble", "oracle")
    } == {
        "even": 0.5,
        "odd": 0.5,
        "oracle": 1.0,
        "pair": 1.0,
    }
    # Who is sure knows: ln 0.9 against ln 0.6 for one byte.
    assert summary["rerank"]["accuracy"] == 1.0
    assert summary["pair"]["against_best"]["verdict"].startswith("wins by 50.0 [+")
    # Two calls are one greedy answer of each; where they differ the first stands.
    assert summary["pair"]["against_vote"]["verdict"].startswith("wins by 50.0 [+")
    assert (summary["pair"]["calls"], summary["majority vote"]["calls"]) == (2, 2)
    assert all(row["tokens"] <= summary["pair"]["tokens"] + 1e-9 for row in summary.values() if row["kind"] == "vote")
    assert re.search(r"pair: wins by 50\.0 \[.*\] against (even|odd), the best member", result.output)
    assert {path.name for path in out.iterdir()} == {
        "_answers",
        "answers.parquet",
        "summary.parquet",
        "report.md",
        "quality_cost.png",
    }
    assert "## By task, right %" in (out / "report.md").read_text()


def test_all_that_is_there_under_a_fixed_budget(url: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("evaluate", url, file, "-o", out, "--budget", "tokens=9", "--questions", 24, "--split", 0, "--max-tokens", 4)
    rows = pq.read_table(out / "answers.parquet").to_pylist()
    assert {row["system"] for row in rows if row["kind"] in ("member", "ensemble")} == {"even", "odd", "pair", "forest"}
    assert {row["split"] for row in rows} == {"test"}
    assert len(rows) == 24 * 8
    # A question is two or three tokens, an answer two; the step under way may go above, and then everyone may.
    spent = {(row["row"], row["system"]): row["tokens"] for row in rows}
    for (row, system), tokens in spent.items():
        allowed = max(9, spent[row, "pair"], spent[row, "forest"])
        assert tokens <= allowed < 13 or system == "oracle"
    assert "as there is no development part" in (out / "report.md").read_text()


def test_a_second_run_asks_nothing(url: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("evaluate", url, file, "-o", out, "--members", "even,odd", "--max-tokens", 4)
    first = run(*arguments)
    journal = {path: path.stat().st_size for path in (out / "_answers").glob("*.jsonl")}
    again = run(*arguments)
    assert again.stdout == first.stdout
    assert sum(path.stat().st_size for path in (out / "_answers").glob("*.jsonl")) == sum(journal.values())
    assert "0 failed" in again.stderr


def test_tuning_finds_how_sure_a_member_must_be_to_decide_alone(url: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(
        *("tune", url, file, "-o", out, "--method", "gac", "--members", "even,odd", "--max-tokens", 4),
        *("--grid", "threshold=.5,.7", "--budget", "questions=120"),
    )
    # Above 0.5 the first member is sure of wrong answers too, which have 0.6; above 0.7 only of what it knows.
    assert yaml.safe_load((out / "chosen.yaml").read_text())["ensembles"]["tuned"] == {
        "method": "gac",
        "members": ["even", "odd"],
        "options": {"threshold": 0.7, "weights": [1, 1]},
    }
    rows = pq.read_table(out / "summary.parquet").to_pylist()
    summary = {row["system"]: row for row in rows if row["split"] == "test"}
    assert {name: row["accuracy"] for name, row in summary.items()} == {
        "even": 0.5,
        "odd": 0.5,
        "untuned": 0.5,
        "tuned": 1.0,
    }
    assert summary["tuned"]["against_best"]["verdict"].startswith("wins by 50.0")
    report = (out / "report.md").read_text()
    assert "- candidates: 6, " in report and "## Candidates on the development part" in report
    assert "even 1, odd 1, threshold=0.7" in result.stdout
    assert (out / "quality_cost.png").exists()


def test_tuning_within_a_budget_of_tokens(url: str, file: Path, tmp_path: Path) -> None:
    run(
        *("tune", url, file, "-o", tmp_path / "out", "--method", "gac", "--members", "even,odd", "--max-tokens", 4),
        *("--grid", "threshold=.5,.7", "--budget", "tokens=400", "--concurrency", 2),
    )
    (spent,) = re.findall(r"candidates: 6, (\d+) tokens spent", (tmp_path / "out" / "report.md").read_text())
    assert 400 <= int(spent) < 400 + 2 * 20
