"""How an outcome table lies on disk: one Parquet file in long form, or a folder with a file for each of its parts.

Knows nothing of what the columns mean, but for which of them tell of the query and not of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats
from ensemble.outcomes.schema import ALIASES, QUERIES

CELLS, QUERY, MEMBERS, FEATURES = "outcomes.parquet", "queries.parquet", "members.parquet", "features.npy"
"""Files of a folder."""
_ABOUT = b"ray_ensemble.members"
"""Key of the members in the metadata of a table in one file."""


class Parts(NamedTuple):
    """A table in its parts; those that a file does not tell are ``None``."""

    queries: pa.Table | None
    cells: pa.Table
    members: pa.Table | None = None
    features: Floats | None = None


class Whole(NamedTuple):
    """A table with all its parts."""

    queries: pa.Table
    cells: pa.Table
    members: pa.Table
    features: Floats | None


def read(path: Path, *, responses: bool = True) -> Parts:
    """The parts as they are on disk.

    Raises:
        BadRequest: there is no such file or folder, or it cannot be read.
    """
    if path.is_dir():
        return _folder(path, responses)
    if not path.name.endswith(".parquet"):
        raise BadRequest(f"{path}: an outcome table is a .parquet file or a folder with {CELLS}", param="outcomes")
    table = _parquet(path, responses)
    about = (table.schema.metadata or {}).get(_ABOUT)
    members = None if about is None else pa.Table.from_pylist(json.loads(about))
    return Parts(None, table, members)


def write(path: Path, parts: Whole) -> None:
    """Write a table; each file is whole or not there.

    Raises:
        BadRequest: one file is to hold features, or the place cannot be written to.
    """
    one = path.name.endswith(".parquet")
    if one and parts.features is not None:
        raise BadRequest(f"{path}: one file holds no features; give a folder", param="output")
    try:
        (path.parent if one else path).mkdir(parents=True, exist_ok=True)
        if one:
            beside, place = _beside(path, partial(pq.write_table, long(parts), compression="zstd"))
            beside.replace(place)
        else:
            _write_folder(path, parts)
    except OSError as error:
        raise BadRequest(f"{path} cannot be written: {error.strerror or error}", param="output") from error


def long(parts: Whole) -> pa.Table:
    """One row for each cell, with what is known of its query; queries without cells are not told."""
    places = pc.index_in(parts.cells["query_id"], value_set=parts.queries["query_id"].combine_chunks())
    told = parts.queries.drop_columns(["query_id"]).take(places)
    columns = {name: told[name] for name in told.column_names} | {n: parts.cells[n] for n in parts.cells.column_names}
    order = ["query_id", *told.column_names, *(n for n in parts.cells.column_names if n != "query_id")]
    table = pa.table({name: columns[name] for name in order})
    return table.replace_schema_metadata({_ABOUT: json.dumps(parts.members.to_pylist()).encode()})


def parted(table: pa.Table, where: str) -> tuple[pa.Table, pa.Table]:
    """Queries, in the order of their first cell, and cells of a table in long form.

    Raises:
        BadRequest: two rows of one query tell different things of it.
    """
    if "query_id" not in table.column_names:
        has = ", ".join(table.column_names) or "none"
        raise BadRequest(f"{where} has no column 'query_id'; it has: {has}", param="query_id")
    own = [n for n in table.column_names if ALIASES.get(n, (n, 1.0))[0] in QUERIES]
    _, first, group = np.unique(_codes(table["query_id"]), return_index=True, return_inverse=True)
    for name in own:
        codes = _codes(table[name])
        differs = np.flatnonzero(codes != codes[first][group])
        if len(differs):
            query = table["query_id"][int(differs[0])].as_py()
            raise BadRequest(f"{where}: the rows of query {query!r} differ in {name}; allowed: one value", param=name)
    queries = table.select(own).take(np.sort(first))
    return queries, table.drop_columns([name for name in own if name != "query_id"])


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """[rows], equal numbers for equal values; null is a value."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    codes: np.ndarray = (
        encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    ).indices.to_numpy()
    return codes


def _folder(path: Path, responses: bool) -> Parts:
    if not (path / CELLS).is_file():
        raise BadRequest(f"{path} holds no {CELLS}", param="outcomes")
    queries = _parquet(path / QUERY) if (path / QUERY).is_file() else None
    members = [path / name for name in (MEMBERS, "models.parquet") if (path / name).is_file()]
    vectors = _vectors(path)
    return Parts(
        queries,
        _parquet(path / CELLS, responses),
        _parquet(members[0]) if members else None,
        features(vectors) if vectors.is_file() else None,
    )


def _vectors(path: Path) -> Path:
    """The folder's file of features, whether it is there or not."""
    there = sorted(found for pattern in (FEATURES, "embeddings_*.npy") for found in path.glob(pattern))
    if len(there) > 1:
        names = ", ".join(found.name for found in there)
        raise BadRequest(f"{path} holds several sets of features: {names}; allowed: one", param="outcomes")
    return there[0] if there else path / FEATURES


def _parquet(path: Path, responses: bool = True) -> pa.Table:
    if not path.exists():
        raise BadRequest(f"{path}: there is no such file", param="outcomes")
    try:
        names = pq.read_schema(path).names
        return pq.read_table(path, columns=None if responses else [name for name in names if name != "response"])
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadRequest(f"{path}: the file cannot be read: {reason}", param="outcomes") from error


def features(path: Path) -> Floats:
    """Embeddings [n, d] of an ``.npy`` file.

    Raises:
        BadRequest: it cannot be read.
    """
    try:
        found: Floats = np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, EOFError, TypeError, ValueError) as error:
        raise BadRequest(f"{path}: the file cannot be read: {error}", param="outcomes") from error
    return found


def _write_folder(path: Path, parts: Whole) -> None:
    place, vectors = _vectors(path), parts.features
    # Cells come last: queries and members that nobody has answered are a table, cells of strangers are none.
    named = {QUERY: parts.queries, MEMBERS: parts.members, CELLS: parts.cells}
    written = [
        _beside(path / name, partial(pq.write_table, table, compression="zstd")) for name, table in named.items()
    ]
    if vectors is None:
        place.unlink(missing_ok=True)
    else:
        written.insert(0, _beside(place, lambda at: np.save(at, vectors)))
    for beside, target in written:
        beside.replace(target)


def _beside(path: Path, write: Callable[[BinaryIO], object]) -> tuple[Path, Path]:
    """Write a file beside its place, so that a crash leaves the old one or the new one; both paths."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        write(file)
    return beside, path
