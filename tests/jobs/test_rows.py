"""The rows of several jobs as one stream: who has its turn when, and that a file is read once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import inputs, rows
from jobs.inputs import Cell, Input, JsonLines, opened
from jobs.rows import Rows


def file(folder: Path, name: str, count: int) -> Input:
    (folder / name).write_text("".join(json.dumps({"q": f"{name}{i}", "p": i}) + "\n" for i in range(count)))
    return opened(folder / name)


def test_jobs_take_turns_row_by_row(tmp_path: Path) -> None:
    one, other = file(tmp_path, "a.jsonl", 2), file(tmp_path, "b.jsonl", 3)
    table = next(iter(Rows([(one, "q"), (other, "q"), (one, "q")]).blocks()))
    assert list(zip(table["job"].to_pylist(), table["row"].to_pylist(), strict=True)) == [
        *((0, 0), (2, 0), (1, 0)),
        *((0, 1), (2, 1), (1, 1)),
        (1, 2),
    ]
    assert table["value"].to_pylist()[:3] == ['"a.jsonl0"', '"a.jsonl0"', '"b.jsonl0"']


def test_a_file_of_several_jobs_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    cells = JsonLines.cells

    def counted(self: JsonLines, column: str) -> Iterator[list[Cell]]:
        reads.append(column)
        return cells(self, column)

    monkeypatch.setattr(JsonLines, "cells", counted)
    source = file(tmp_path, "a.jsonl", 2)
    stream = Rows([(source, "q"), (source, "p"), (source, "q")])
    assert sum(block.num_rows for block in stream.blocks()) == 6
    assert sorted(reads) == ["p", "q"]


def test_blocks_are_small_however_many_jobs_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK", 4)
    monkeypatch.setattr(inputs, "CHUNK", 4)
    source = file(tmp_path, "a.jsonl", 5)
    blocks = list(Rows([(source, "q")] * 3).blocks())
    assert [block.num_rows for block in blocks] == [4, 4, 4, 3]
