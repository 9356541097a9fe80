"""The rows of a job, read from Parquet or JSON lines in chunks, in order, as often as needed.

A row is known by its position, counted from 0; blank lines of JSON lines are no rows. Lines that are no JSON object
are rows with a problem, not an end to the job. Knows nothing of models.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.errors import BadRequest

CHUNK = 4096
"""Rows read at once; what a job holds in memory of a file."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """What one row asks: a value as JSON text, or what keeps it from being read."""

    value: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Input(ABC):
    """A file of rows; values that travel."""

    path: Path
    schema: pa.Schema
    rows: int
    digest: str
    """SHA-256 of the file."""

    @abstractmethod
    def cells(self, column: str) -> Iterator[list[Cell]]:
        """One column, in chunks."""

    @abstractmethod
    def tables(self) -> Iterator[pa.Table]:
        """All columns, in the same chunks."""

    def require(self, column: str) -> None:
        """Refuse a column that is not there.

        Raises:
            BadRequest: naming those there are.
        """
        if column not in self.schema.names:
            has = ", ".join(self.schema.names) or "none"
            raise BadRequest(f"{self.path} has no column {column!r}; it has: {has}", param="column")

    def require_unchanged(self) -> None:
        """Refuse a file that is no longer what it was.

        Raises:
            BadRequest: its digest differs.
        """
        if _digest(self.path) != self.digest:
            raise BadRequest(f"{self.path} was changed while the job ran", param="input")

    def require_distinct(self, column: str) -> None:
        """Refuse a column of ids of which one is missing or there twice; holds eight bytes for each row.

        Raises:
            BadRequest: naming the row.
        """
        self.require(column)
        hashes = np.empty(self.rows, np.uint64)
        for row, cell in enumerate(cell for chunk in self.cells(column) for cell in chunk):
            if cell.value in (None, "null"):
                raise BadRequest(f"row {row} of {self.path} has no {column!r}; ids must be there", param=column)
            hashes[row] = int.from_bytes(hashlib.blake2b(str(cell.value).encode(), digest_size=8).digest())
        order = np.argsort(hashes, kind="stable")
        twice = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if len(twice):
            first, second = order[twice[0]], order[twice[0] + 1]
            raise BadRequest(f"rows {first} and {second} of {self.path} have the same {column!r}", param=column)


def opened(path: Path) -> Input:
    """The file, looked through once: its columns, number of rows and digest.

    Raises:
        BadRequest: it cannot be read, or its name does not end as one of the formats does.
    """
    for ending, reading in READERS.items():
        if path.name.endswith(ending):
            with _readable(path):
                return reading(path)
    raise BadRequest(f"{path}: unknown format; a file name must end with one of: {', '.join(READERS)}", param="input")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise BadRequest(f"{path}: the file cannot be read: {reason}", param="input") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Parquet(Input):
    """A Parquet file."""

    @classmethod
    def of(cls, path: Path) -> Parquet:
        digest = _digest(path)
        with pq.ParquetFile(path) as file:
            return cls(path, file.schema_arrow, file.metadata.num_rows, digest)

    def cells(self, column: str) -> Iterator[list[Cell]]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(CHUNK, columns=[column]):
                yield [_cell(value) for value in _values(batch.column(0))]

    def tables(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(CHUNK):
                yield pa.Table.from_batches([batch])


def _values(column: pa.Array) -> list[Any]:
    """Python values; text that is no UTF-8, which Arrow does not look for, stays bytes."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return cast(list[Any], column.to_pylist())
    return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _cell(value: Any) -> Cell:
    try:
        return Cell(json.dumps(value))
    except (TypeError, ValueError):
        return Cell(problem=f"a value of type {type(value).__name__} cannot be asked")


class JsonLines(Input):
    """One JSON object on each line. In columns whose rows do not agree in type, what is no text becomes JSON text."""

    @classmethod
    def of(cls, path: Path) -> JsonLines:
        rows, fields = 0, dict[str, pa.DataType | None]()
        for chunk in _chunks(_objects(path)):
            rows += len(chunk)
            known = [found for found in chunk if found is not None]
            for name in dict.fromkeys(name for found in known for name in found):
                inferred = _inferred([found.get(name) for found in known])
                fields[name] = _agreed(fields[name], inferred) if name in fields else inferred
        schema = pa.schema([_field(name, type_) for name, type_ in fields.items()])
        return cls(path, schema, rows, _digest(path))

    def cells(self, column: str) -> Iterator[list[Cell]]:
        broken = Cell(problem="the line is no JSON object of Unicode text")
        for chunk in _chunks(_objects(self.path)):
            yield [broken if found is None else Cell(json.dumps(found.get(column))) for found in chunk]

    def tables(self) -> Iterator[pa.Table]:
        for chunk in _chunks(_objects(self.path)):
            columns = [_column([(found or {}).get(field.name) for found in chunk], field) for field in self.schema]
            yield pa.Table.from_arrays(columns, schema=self.schema)


READERS: dict[str, Callable[[Path], Input]] = {
    ".parquet": Parquet.of,
    ".jsonl": JsonLines.of,
    ".jsonl.gz": JsonLines.of,
}
"""By the end of the file's name."""


def _objects(path: Path) -> Iterator[Json | None]:
    opening = gzip.open if path.name.endswith(".gz") else open
    with cast(IO[bytes], opening(path, "rb")) as file:
        for line in file:
            if line.strip():
                yield _object(line)


def _object(line: bytes) -> Json | None:
    try:
        found = json.loads(line)
        # Half a surrogate pair passes as an escape, but is no text that can be written anywhere.
        if b"\\u" in line:
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _chunks(objects: Iterable[Json | None]) -> Iterator[list[Json | None]]:
    iterator = iter(objects)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _inferred(values: list[Any]) -> pa.DataType | None:
    """The type of all values, ``None`` if they have no common one."""
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return None


def _agreed(left: pa.DataType | None, right: pa.DataType | None) -> pa.DataType | None:
    if left is None or right is None:
        return None
    try:
        fields = [pa.schema([("x", type_)]) for type_ in (left, right)]
        return pa.unify_schemas(fields, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return None


def _field(name: str, type_: pa.DataType | None) -> pa.Field:
    return pa.field(name, pa.string() if type_ is None or pa.types.is_null(type_) else type_)


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_string(field.type):
        values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pa.array(values, field.type)
