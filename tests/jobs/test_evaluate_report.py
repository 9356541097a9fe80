"""What is written: the tables, the words, the picture."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from evaluation_doubles import questions, reply

from jobs.evaluation import plot, report, results, tables
from jobs.evaluation.grading import grade
from jobs.evaluation.questions import Split
from jobs.evaluation.run import Found
from jobs.evaluation.systems import Kind, System, alone, oracle

EXACT = grade("exact")
COUNT = 40


def system(name: str, right: int, kind: Kind = "member", *, split: Split = "test", tokens: int = 10) -> System:
    """Right on the first questions, with an error on the last one where it is not right."""
    asked = questions(*["4"] * COUNT, split=split, start=0 if split == "development" else COUNT)
    replies = [
        reply("4" if i < right else "5", tokens=tokens, error="member_lost: gone" if right <= i == COUNT - 1 else None)
        for i in range(COUNT)
    ]
    return System(name, kind, tuple(alone(q, r, EXACT) for q, r in zip(asked, replies, strict=True)))


def found(pair: int = 10) -> Found:
    left, right = system("left", 30), system("right", 32)
    outcomes = tuple(oracle(o.question, [reply("4")], EXACT) for o in left.outcomes)
    bound = System("oracle", "oracle", outcomes)
    fused = system("pair|x", pair, "ensemble", tokens=25)
    vote = system("majority vote at the calls of pair|x", 30, "vote")
    before = [system("left", 36, split="development"), system("right", 30, split="development")]
    return Found(before, [left, right, bound, fused], "left", {"pair|x": vote})


def test_losing_is_said_in_plain_words() -> None:
    words = list(report.findings(found(), seed=0))
    assert words[0] == (
        "the best member is left, right on 75.0 % of the test part; "
        "it was chosen on the development part, with 90.0 %; in hindsight right is better, with 80.0 %"
    )
    points = r"\[−\d\d\.\d, −\d\d\.\d\]"
    best = f"loses by 50.0 {points} against left, the best member"
    hindsight = f"loses by 55.0 {points} against right, the best in hindsight"
    vote = f"loses by 50.0 {points} against the majority vote at equal calls"
    assert re.fullmatch(rf"pair\|x: {best}; {hindsight}; {vote}", words[1])
    assert words[2].startswith("right is 15.0 points below left: fusing members more than about ten points apart")
    assert "pair|x: tie, +2.5 [0.0, +7.5] against left" in next(w for w in report.findings(found(31), 0) if "pair" in w)
    assert "pair|x: wins by 22.5 [" in next(w for w in report.findings(found(39), 0) if "pair" in w)


@pytest.mark.parametrize(("worse", "told"), [(36, 0), (32, 0), (31, 1)])
def test_members_are_apart_by_more_than_ten_points(worse: int, told: int) -> None:
    # 36 and 32 of 40 are exactly ten points apart.
    assert len(list(tables.apart([system("a", worse), system("b", 36)]))) == told


def test_without_a_development_part_the_flattery_is_told() -> None:
    bare = Found([], found().test, "right", {})
    assert "as there is no development part, so its figure is flattering" in report.best_member(bare)
    assert len(list(report.findings(bare, seed=0))) == 2


def test_the_report(tmp_path: Path) -> None:
    report.write(found(), tmp_path / "report.md", title="Trial", facts={"seed": 3}, seed=0)
    text = (tmp_path / "report.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "# Trial"
    assert "- seed: 3" in lines
    (row,) = [line for line in lines if line.startswith("| pair\\|x | 25.0 | 12.5–")]
    assert "| loses by 50.0 [−65.0, −3" in row
    assert row.endswith("] | 0–20 | 1.9e-06 | 25.0 | 1.0 | 25.00 | 25 | 1 |")
    assert any(line.startswith("| left | 75.0 | ") and "| best member |  |  |" in line for line in lines)
    assert "| left | member_lost | 2 |" in lines
    assert f"- row {COUNT - 1}, left: member_lost: gone" in lines
    assert "## Ensembles against the majority vote at equal calls" in lines
    assert "By task" not in text
    header = lines.index("## All systems, same questions") + 2
    assert lines[header].count("|") == lines[header + 1].count("|")


def test_the_tables(tmp_path: Path) -> None:
    results.write(found(), tmp_path, seed=0)
    answers = pq.read_table(tmp_path / "answers.parquet")
    assert answers.schema.equals(results.ANSWERS)
    rows = answers.to_pylist()
    assert len(rows) == 6 * COUNT
    last = next(row for row in rows if row["system"] == "pair|x" and row["row"] == 2 * COUNT - 1)
    assert (last["split"], last["answer"], last["right"], last["error"], last["finish"]) == (
        "test",
        None,
        False,
        "member_lost: gone",
        None,
    )
    assert (last["expected"], last["question"], last["task"]) == ("4", f"q{2 * COUNT - 1}", None)
    assert last["cost"] == Decimal(25)
    summary = {(row["split"], row["system"]): row for row in pq.read_table(tmp_path / "summary.parquet").to_pylist()}
    assert set(summary) == {
        ("development", "left"),
        ("development", "right"),
        *(("test", name) for name in ("left", "right", "oracle", "pair|x")),
    }
    pair = summary["test", "pair|x"]
    assert (pair["accuracy"], pair["errors"], pair["tokens"], pair["best"]) == (0.25, 1, 25.0, False)
    assert (pair["against_best"]["won"], pair["against_best"]["lost"]) == (0, 20)
    assert pair["against_vote"]["verdict"].startswith("loses by 50.0")
    assert summary["test", "left"]["best"] and summary["test", "left"]["against_best"] is None
    assert summary["test", "right"]["against_vote"] is None


def test_the_picture(tmp_path: Path) -> None:
    plot.draw(found().test, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_paths_are_whole_or_absent(tmp_path: Path) -> None:
    results.write(found(), tmp_path, seed=0)
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["answers.parquet", "summary.parquet"]
