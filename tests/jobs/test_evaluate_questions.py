from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ensemble.errors import BadRequest
from jobs.evaluation.grading import grade
from jobs.evaluation.questions import Columns, read

EXACT = grade("exact")


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def many(folder: Path, count: int, tasks: int = 1) -> Path:
    return lines(folder, *({"question": f"q{i}", "answer": i, "task": f"t{i % tasks}"} for i in range(count)))


def test_all_formats_hold_the_same(tmp_path: Path) -> None:
    rows = [{"q": "2+2?", "a": "4", "t": "sum"}, {"q": 'say "hi",\nplease', "a": "hi", "t": "say"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text('q,a,t\n2+2?,4,sum\n"say ""hi"",\nplease",hi,say\n', encoding="utf-8-sig")
    columns = Columns("q", "a", "t")
    found = [
        read(path, columns, EXACT) for path in (lines(tmp_path, *rows), tmp_path / "in.parquet", tmp_path / "in.csv")
    ]
    assert found[0] == found[1] == found[2]
    assert [(q.row, q.text, q.answer, q.task) for q in found[0]] == [
        (0, "2+2?", "4", "sum"),
        (1, 'say "hi",\nplease', "hi", "say"),
    ]


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("tasks", [1, 3])
def test_the_split_is_exact_even_and_seeded(tmp_path: Path, share: Any, tasks: Any) -> None:
    path, columns = many(tmp_path, 30, tasks), Columns(task="task")
    found = read(path, columns, EXACT, share=share)
    parts = Counter(q.split for q in found)
    assert parts["development"] == int(round(30 * share, 9))
    by_task = Counter(q.task for q in found if q.split == "development")
    assert max(by_task.values(), default=0) - min(by_task.values(), default=0) <= 1
    assert found == read(path, columns, EXACT, share=share)
    if share > 0:
        assert found != read(path, columns, EXACT, share=share, seed=1)


def test_drawn_questions_keep_their_rows(tmp_path: Path) -> None:
    found = read(many(tmp_path, 50), Columns(), EXACT, count=10)
    rows = [q.row for q in found]
    assert rows == sorted(rows) and len(set(rows)) == 10
    assert [q.text for q in found] == [f"q{row}" for row in rows]
    assert rows != [q.row for q in read(many(tmp_path, 50), Columns(), EXACT, count=10, seed=7)]


def test_seeds_differ_by_row_and_sample(tmp_path: Path) -> None:
    first, second = read(many(tmp_path, 2), Columns(), EXACT)
    seeds = {first.seed(0, 0), first.seed(0, 1), first.seed(1, 0), second.seed(0, 0)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": " ", "answer": "a"}, "row 1 of .*column 'question': a question must be text"),
        ({"question": 5, "answer": "a"}, "a question must be text"),
        ({"question": "q", "answer": None}, "row 1 of .*column 'answer': an answer must be text or a number"),
        ({"question": "q", "answer": True}, "an answer must be text or a number"),
        ({"question": "q", "answer": ""}, "cannot be read by --grade exact"),
        ([], "the line is no JSON object"),
    ],
)
def test_a_row_that_cannot_be_used_refuses_the_file(tmp_path: Path, row: Any, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        read(lines(tmp_path, {"question": "q", "answer": "a"}, row), Columns(), EXACT)


def test_refused_files(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("q,a\nx,y\n")
    (tmp_path / "empty.csv").write_text("question,answer\n")
    (tmp_path / "broken.csv").write_bytes(b"question,answer\n\xff,1\n")
    for path, told in [
        (tmp_path / "in.txt", "must end with one of: .parquet, .jsonl, .jsonl.gz, .csv"),
        (tmp_path / "none.csv", "cannot be read: No such file"),
        (tmp_path / "in.csv", "has no column 'question'; it has: q, a"),
        (tmp_path / "empty.csv", "holds no questions"),
        (tmp_path / "broken.csv", "cannot be read: 'utf-8' codec"),
        (many(tmp_path, 3), "has no column 'kind'"),
    ]:
        with pytest.raises(BadRequest, match=told):
            read(path, Columns(task="kind" if path.suffix == ".jsonl" else None), EXACT)


def test_refused_amounts(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"count": 4}, "holds 3 questions; 4 are wanted"),
        ({"share": 1.0}, "at least 0 and below 1"),
        ({"share": 0.1}, "3 questions are too few for a development part of 0.1"),
    ]
    for given, told in cases:
        with pytest.raises(BadRequest, match=told):
            read(many(tmp_path, 3), Columns(), EXACT, **given)
