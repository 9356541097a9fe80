from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from jobs.journal import Index, Writer, files

texts = st.text(max_size=8)


def written(folder: Path, rows: list[int], text: str = "") -> Path:
    writer = Writer(folder)
    for row in rows:
        writer.write([{"row": row, "text": f"{text}{row}", "error": {"code": "x"} if row % 2 else None}])
    writer.close()
    return files(folder)[-1]


def test_each_writer_has_a_file_of_its_own(tmp_path):
    paths = [written(tmp_path, [i]) for i in range(11)]
    assert files(tmp_path) == paths
    assert [path.name for path in paths[-2:]] == ["000009.jsonl", "000010.jsonl"]


def test_records_come_in_the_order_of_the_rows(tmp_path):
    written(tmp_path, [3, 1])
    written(tmp_path, [])
    written(tmp_path, [0, 2])
    index = Index(tmp_path, 4)
    assert index.done.tolist() == [True] * 4
    assert [record["text"] for record in index.records()] == ["0", "1", "2", "3"]
    assert index.failed == 2


def test_the_first_record_of_a_row_counts(tmp_path):
    written(tmp_path, [0, 0], "a")
    written(tmp_path, [0, 1], "b")
    index = Index(tmp_path, 2)
    assert [record["text"] for record in index.records()] == ["a0", "b1"]
    assert index.failed == 1


def test_rows_beyond_the_input_and_foreign_lines_are_none(tmp_path):
    path = written(tmp_path, [0])
    with path.open("ab") as file:
        file.write(b'{"row": 7}\n{"row": -1}\n{"row": true}\n{"row": "1"}\n[1]\nnull\n\n\xff\xfe\n{"row": 1}\n')
    assert Index(tmp_path, 3).done.tolist() == [True, True, False]


def test_an_empty_folder_has_no_rows(tmp_path):
    index = Index(tmp_path, 2)
    assert not index.done.any()
    assert list(Index(tmp_path, 0).records()) == []


@given(st.lists(st.tuples(st.integers(0, 5), texts), max_size=12), st.data())
def test_a_crash_at_any_byte_loses_only_the_torn_line(lines, data):
    """Whatever a crash leaves of a file, what comes before is kept, and the next writer goes on from there."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        writer = Writer(folder)
        for row, text in lines:
            writer.write([{"row": row, "text": text}])
        writer.close()
        whole = files(folder)[0].read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        files(folder)[0].write_bytes(whole[:cut])

        kept = [json.loads(line) for line in whole[:cut].split(b"\n")[:-1]]
        index = Index(folder, 6)
        assert set(index.done.nonzero()[0].tolist()) == {record["row"] for record in kept}

        missing = [row for row in range(6) if not index.done[row]]
        second = Writer(folder)
        second.write([{"row": row, "text": "second"} for row in missing])
        second.close()
        first = {record["row"]: record["text"] for record in reversed(kept)}
        expected = [first.get(row, "second") for row in range(6)]
        assert [record["text"] for record in Index(folder, 6).records()] == expected


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=3), texts)
def test_order_of_completion_does_not_matter(orders, text):
    with TemporaryDirectory() as name:
        for order in orders:
            written(Path(name), list(order), text)
        records = list(Index(Path(name), 6).records())
        assert [(record["row"], record["text"]) for record in records] == [(i, f"{text}{i}") for i in range(6)]
