"""Outcome tables on disk: what is written is read back, in one file or in a folder, and broken ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ensemble.errors import BadRequest
from ensemble.outcomes.table import Outcomes, read


def table(features: bool = True) -> Outcomes:
    return Outcomes.of(
        pa.table(
            {
                "query_id": ["p", "p", "q"],
                "member": ["a", "b|brief", "a"],
                "quality": [1.0, None, 0.0],
                "response": ["two", None, "four"],
                "propensity": [0.5, 0.25, None],
            }
        ),
        pa.table({"query_id": ["p", "q"], "text": ["1+1=", None], "split": ["fit", "test"]}),
        pa.table({"member": ["b|brief", "a"], "input_price": [None, 1e-6], "output_price": [None, 2e-6]}),
        np.eye(2, 3, dtype=np.float32) if features else None,
    )


@pytest.mark.parametrize("name", ["table", "table.parquet"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    before = table(features=name == "table")
    before.write(tmp_path / name)
    after = read(tmp_path / name)
    assert after.cells.equals(before.cells)
    assert after.queries.equals(before.queries)
    assert after.members.to_pylist() == before.members.to_pylist()
    assert (after.features is None) == (before.features is None)
    if before.features is not None:
        np.testing.assert_array_equal(after.features, before.features)


def test_one_file_is_in_long_form(tmp_path: Path) -> None:
    table(features=False).write(tmp_path / "t.parquet")
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["text"] for row in rows] == ["1+1=", "1+1=", None]
    assert rows[1]["member"] == "b|brief"


def test_one_file_does_not_lose_features_silently(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="one file holds no features; give a folder"):
        table().write(tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


def test_a_folder_written_anew_has_no_features_of_before(tmp_path: Path) -> None:
    table().write(tmp_path / "t")
    table(features=False).write(tmp_path / "t")
    assert read(tmp_path / "t").features is None
    assert not list((tmp_path / "t").glob(".*"))


def test_responses_can_be_left_out(tmp_path: Path) -> None:
    table().write(tmp_path / "t")
    assert "response" not in read(tmp_path / "t", responses=False).cells.column_names
    assert "response" in read(tmp_path / "t").cells.column_names


def test_a_folder_of_other_names_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query_id": ["q"], "model": ["a"], "quality": [1.0]}), tmp_path / "outcomes.parquet")
    pq.write_table(pa.table({"model": ["b", "a"], "params_b": [7.0, 8.0]}), tmp_path / "models.parquet")
    np.save(tmp_path / "embeddings_minilm.npy", np.ones((1, 2), np.float16))
    found = read(tmp_path)
    assert found.names == ("b", "a")
    assert found.features is not None and found.features.dtype == np.float32
    np.save(tmp_path / "features.npy", np.ones((1, 2)))
    with pytest.raises(BadRequest, match=r"several sets of features: embeddings_minilm\.npy, features\.npy"):
        read(tmp_path)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"holds no outcomes\.parquet"):
        read(tmp_path)
    with pytest.raises(BadRequest, match=r"t\.csv: an outcome table is a \.parquet file or a folder"):
        read(tmp_path / "t.csv")
    with pytest.raises(BadRequest, match=r"none\.parquet: there is no such file"):
        read(tmp_path / "none.parquet")
    (tmp_path / "t.parquet").write_text("?")
    with pytest.raises(BadRequest, match=r"t\.parquet: the file cannot be read"):
        read(tmp_path / "t.parquet")
    pq.write_table(pa.table({"query_id": ["q"], "member": ["a"], "quality": [2.0]}), tmp_path / "t.parquet")
    with pytest.raises(BadRequest, match=r"row 0 of .*t\.parquet: quality is 2\.0"):
        read(tmp_path / "t.parquet")
    with pytest.raises(BadRequest, match="cannot be written"):
        table().write(tmp_path / "t.parquet" / "below")


def test_features_keep_the_name_that_they_have_in_a_folder(tmp_path: Path) -> None:
    table().write(tmp_path)
    (tmp_path / "features.npy").rename(tmp_path / "embeddings_minilm.npy")
    more = Outcomes.of(
        pa.table({"query_id": ["r"], "member": ["a"], "quality": [1.0]}), features=np.ones((1, 3), np.float32)
    )
    read(tmp_path).append(more).write(tmp_path)
    found = read(tmp_path).features
    assert found is not None and found.shape == (3, 3)


def test_a_write_that_fails_leaves_the_table_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table()
    before.write(tmp_path)
    cell = pa.table({"query_id": ["r"], "member": ["c"], "quality": [1.0]})
    after = before.append(Outcomes.of(cell, features=np.ones((1, 3), np.float32)))

    write = pq.write_table

    def full(table: pa.Table, *given: object, **more: object) -> None:
        if "input_price" in table.column_names:
            raise OSError(28, "No space left on device")
        write(table, *given, **more)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(BadRequest, match="cannot be written: No space left"):
        after.write(tmp_path)
    found = read(tmp_path)
    assert found.cells.equals(before.cells) and len(found) == 2


@pytest.mark.parametrize("content", [b"", b"?", b"PK"])
def test_features_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    table().write(tmp_path)
    if content == b"PK":
        np.savez(tmp_path / "several.npz", a=np.eye(2))
        content = (tmp_path / "several.npz").read_bytes()
    (tmp_path / "features.npy").write_bytes(content)
    with pytest.raises(BadRequest, match=r"features\.npy: the file cannot be read"):
        read(tmp_path)
