from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from ensemble.errors import BadRequest
from ensemble.request import Usage
from jobs import inputs
from jobs.inputs import opened
from jobs.job import Job
from jobs.journal import Record, Writer
from jobs.results import TYPES, Folder, Summary, columns

ROWS = 23
IDENTITY = {"input": "d", "model": "m", "options": {"a": 1}}


def record(row: int) -> Record:
    usage = {"a": [1, row, 2, "0.000001"], "b": [1, 1, 1, "0"]}
    if row % 5 == 4:
        return {"row": row, "error": {"code": f"code{row % 2}", "message": "m"}, "usage": {}, "seconds": 0.5}
    return {"row": row, "text": f"t{row}", "finish_reason": "stop", "usage": usage, "seconds": 0.25}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Folder:
    monkeypatch.setattr(inputs, "CHUNK", 4)
    return made(tmp_path)


def made(path: Path, identity: dict[str, Any] = IDENTITY, **given: Any) -> Folder:
    source = path / "in.jsonl"
    source.write_text("".join(json.dumps({"question": f"q{i}", "n": i}) + "\n" for i in range(ROWS)))
    return Folder(Job(model="m", input=source, output=path / "out", **given), identity, opened(source))


def journalled(folder: Folder, rows: list[int]) -> None:
    writer = Writer(folder.journal)
    writer.write([record(row) for row in rows])
    writer.close()


def test_all_rows_in_the_order_of_the_input(folder, tmp_path):
    with folder.claimed():
        journalled(folder, list(range(0, ROWS, 2)))
        journalled(folder, list(range(ROWS - 1, -1, -1)))
        summary = folder.compact(chunks_in_file=2)
    out = tmp_path / "out"
    parts = sorted(out.glob("part-*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [8, 8, 7]
    table = pq.read_table(out)
    assert table.column("question").to_pylist() == [f"q{i}" for i in range(ROWS)]
    assert table.column("text").to_pylist() == [record(i).get("text") for i in range(ROWS)]
    assert {name: table.schema.field(name).type for name in TYPES if name != "credits"} == {
        name: type_ for name, type_ in TYPES.items() if name != "credits"
    }
    assert summary.failed == {"code0": 2, "code1": 2}
    assert summary.usage["a"] == Usage(19, sum(i for i in range(ROWS) if i % 5 != 4), 38, Decimal("0.000019"))
    assert sorted(path.name for path in out.iterdir()) == ["_job.json", "_manifest.json", *(p.name for p in parts)]
    manifest = json.loads((out / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["files"], manifest["job"]) == (ROWS, [p.name for p in parts], IDENTITY)
    assert folder.complete == summary


def test_a_compaction_that_was_cut_off_is_done_again(folder, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="killed"), folder.claimed():
        journalled(folder, list(range(ROWS)))
        monkeypatch.setattr(Folder, "_put", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        folder.compact(chunks_in_file=2)
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 3
    assert folder.complete is None
    monkeypatch.undo()
    monkeypatch.setattr(inputs, "CHUNK", 4)
    again = made(tmp_path)
    with again.claimed():
        again.compact(chunks_in_file=2)
    assert pq.read_table(tmp_path / "out").column("n").to_pylist() == list(range(ROWS))
    assert not again.journal.exists()


def test_no_rows_make_one_empty_file(tmp_path):
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"question": pa.array([], pa.string())}), source)
    folder = Folder(Job(model="m", input=source, output=tmp_path / "out"), IDENTITY, opened(source))
    with folder.claimed():
        assert folder.compact() == Summary()
    assert pq.read_table(tmp_path / "out").schema.names[:2] == ["question", "text"]


def test_an_input_that_changed_is_refused(folder, tmp_path):
    with folder.claimed():
        journalled(folder, list(range(ROWS)))
        (tmp_path / "in.jsonl").write_text('{"question": "other"}\n')
        with pytest.raises(BadRequest, match="was changed"):
            folder.compact()
    assert not list((tmp_path / "out").glob("part-*"))


def test_another_job_is_refused_and_told_apart(folder, tmp_path):
    with folder.claimed():
        journalled(folder, [0])
    other = {"input": "d", "model": "other", "options": {"a": 2}}
    refused = pytest.raises(BadRequest, match="out holds another job, with a different model, options; ")
    with refused, made(tmp_path, other).claimed():
        pass
    with made(tmp_path).claimed():
        assert json.loads((tmp_path / "out" / "_job.json").read_text()) == IDENTITY


def test_foreign_files_are_refused(tmp_path):
    folder = made(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(BadRequest, match="holds files that are no job's"), folder.claimed():
        pass
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    file = Folder(Job(model="m", input=tmp_path, output=tmp_path / "in.jsonl"), IDENTITY, folder._source)
    with pytest.raises(BadRequest, match=r"in\.jsonl is no folder"), file.claimed():
        pass


def test_two_runs_at_once_are_refused(folder):
    folder.journal.mkdir(parents=True)
    held = FileLock(folder.journal / "run.lock")
    refused = pytest.raises(BadRequest, match="another run is at work here")
    with held, refused, folder.claimed():
        pass
    with folder.claimed():
        journalled(folder, [0])
    assert folder.journal.exists()


def test_credits_and_costs_are_exact():
    wrote = {
        "row": 0,
        "text": "ab",
        "finish_reason": "stop",
        "seconds": 1.0,
        "usage": {"x": [1, 2, 3, "12345678.000000000000000001"], "y": [1, 1, 1, "1E-19"]},
        "credits": [["a", {"x": 1.0}], ["b", {"x": 0.25, "y": 0.75}]],
    }
    found = columns([wrote, record(4)], credits=True)
    assert found["totals"][0].as_py()["cost"] == Decimal("12345678.000000000000000001")
    assert found["usage"][0].as_py()[1]["cost"] == 0
    assert found["credits"].to_pylist() == [
        [
            {"text": "a", "members": [{"member": "x", "weight": 1.0}]},
            {"text": "b", "members": [{"member": "x", "weight": 0.25}, {"member": "y", "weight": 0.75}]},
        ],
        None,
    ]
    assert "credits" not in columns([wrote], credits=False)
    assert found["error"].to_pylist() == [None, {"code": "code0", "message": "m"}]


def test_a_summary_survives_its_file():
    summary = Summary()
    for row in range(6):
        summary.add(record(row))
    assert Summary.of(json.loads(json.dumps(summary.as_dict()))) == summary
    assert summary.rows == 6
