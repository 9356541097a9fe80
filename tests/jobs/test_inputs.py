from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ensemble.errors import BadRequest
from jobs import inputs
from jobs.inputs import Cell, Input, opened


def lines(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    opening = gzip.open if path.suffix == ".gz" else open
    with opening(path, "wt") as file:
        file.write(text)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def cells(source: Input, column: str) -> list[Cell]:
    return [cell for chunk in source.cells(column) for cell in chunk]


def rows(source: Input) -> list[dict[str, Any]]:
    return pa.concat_tables(source.tables()).to_pylist()


def test_parquet_keeps_types_and_order(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "CHUNK", 3)
    day = datetime.date(2024, 2, 29)
    path = parquet(tmp_path / "a.parquet", question=["a", None, "c", "d"], day=pa.array([day] * 4))
    source = opened(path)
    assert (source.rows, source.schema.names) == (4, ["question", "day"])
    assert cells(source, "question") == [Cell('"a"'), Cell("null"), Cell('"c"'), Cell('"d"')]
    assert rows(source)[3] == {"question": "d", "day": day}
    assert [len(table) for table in source.tables()] == [3, 1]
    assert cells(source, "day")[0] == Cell(problem="a value of type date cannot be asked")


def test_parquet_lists_become_json(tmp_path):
    path = parquet(tmp_path / "a.parquet", messages=[[{"role": "user", "content": "hé"}]])
    assert json.loads(cells(opened(path), "messages")[0].value or "") == [{"role": "user", "content": "hé"}]


def test_text_that_is_none_is_a_problem_of_its_row_only(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"], pa.binary()).buffers())
    path = parquet(tmp_path / "a.parquet", question=broken)
    assert cells(opened(path), "question") == [Cell('"a"'), Cell(problem="a value of type bytes cannot be asked")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_agree_on_types_over_chunks(tmp_path, monkeypatch, name):
    monkeypatch.setattr(inputs, "CHUNK", 2)
    path = lines(
        tmp_path / name,
        {"question": "a", "n": 1, "mixed": "x", "list": [1], "empty": None},
        {"question": "b", "n": 2},
        "",
        {"question": "c", "n": 0.5, "mixed": {"k": 2**70}, "late": True},
    )
    source = opened(path)
    assert source.rows == 3
    assert source.schema.field("n").type == pa.float64()
    assert source.schema.field("late").type == pa.bool_()
    assert source.schema.field("list").type == pa.list_(pa.int64())
    blank = {"list": None, "empty": None, "late": None}
    assert rows(source) == [
        {"question": "a", "n": 1.0, "mixed": "x", **blank, "list": [1]},
        {"question": "b", "n": 2.0, "mixed": None, **blank},
        {"question": "c", "n": 0.5, "mixed": json.dumps({"k": 2**70}), **blank, "late": True},
    ]


def test_broken_lines_are_rows_with_a_problem(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"question": "a"}, '{"question', "[1]", '{"question": "\\ud800"}', "[" * 100_000)
    source = opened(path)
    assert source.rows == 5
    assert [cell.problem is not None for cell in cells(source, "question")] == [False, True, True, True, True]
    assert rows(source) == [{"question": "a"}] + [{"question": None}] * 4


def test_escapes_are_text(tmp_path):
    path = lines(tmp_path / "a.jsonl", '{"question": "\\ud83d\\ude00 \\u00e9"}')
    assert rows(opened(path)) == [{"question": "😀 é"}]


def test_the_digest_is_of_the_file(tmp_path):
    one, two = (lines(tmp_path / f"{i}.jsonl", {"question": "a"}) for i in range(2))
    assert opened(one).digest == opened(two).digest
    source = opened(two)
    lines(two, {"question": "b"})
    with pytest.raises(BadRequest, match=r"1\.jsonl was changed while the job ran"):
        source.require_unchanged()
    opened(one).require_unchanged()


def unreadable(folder: Path, kind: str) -> Path:
    path = folder / f"a.{kind}"
    if kind == "jsonl.gz":
        whole = gzip.compress(b'{"question": "a"}\n' * 1000)
        path.write_bytes(whole[: len(whole) // 2])
    elif kind != "jsonl":
        path.write_bytes(b"PAR1 nothing of the kind PAR1")
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("csv", r"a\.csv: unknown format; a file name must end with one of: \.parquet, \.jsonl, \.jsonl\.gz"),
        ("parquet", "a.parquet: the file cannot be read: "),
        ("jsonl", "a.jsonl: the file cannot be read: No such file or directory"),
        ("jsonl.gz", "a.jsonl.gz: the file cannot be read: Compressed file ended"),
    ],
)
def test_files_that_are_refused(tmp_path, kind, told):
    with pytest.raises(BadRequest, match=told):
        opened(unreadable(tmp_path, kind))


def test_a_missing_column_is_refused_with_those_there_are(tmp_path):
    source = opened(lines(tmp_path / "a.jsonl", {"text": "a", "id": 1}))
    source.require("text")
    with pytest.raises(BadRequest, match="has no column 'question'; it has: text, id"):
        source.require("question")


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["a", "b", "a"], "rows 0 and 2 of .* have the same 'id'"),
        (["a", None, "b"], "row 1 of .* has no 'id'"),
        ([[1], [1], [2]], "rows 0 and 1"),
    ],
)
def test_ids_must_be_there_and_differ(tmp_path, ids, told):
    source = opened(lines(tmp_path / "a.jsonl", *({"id": id} for id in ids)))
    with pytest.raises(BadRequest, match=told):
        source.require_distinct("id")


def test_distinct_ids_are_taken(tmp_path):
    source = opened(lines(tmp_path / "a.jsonl", {"id": 1}, {"id": "1"}, {"id": 1.5}))
    source.require_distinct("id")
    assert source.rows == 3
