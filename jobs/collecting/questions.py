"""The questions of a collection: what is asked, and what the outcome table says of each query.

A file that cannot be used as a whole is refused: a question that is left out would change every figure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from ensemble.errors import BadRequest
from jobs.asking import request
from jobs.collecting import foreign
from jobs.inputs import Cell
from jobs.job import Job, Kind, Subject

ASKED = "asked"
"""Column of what is put to members."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file says what."""

    subject: Subject = field(default_factory=Subject)
    reference: str | None = None
    """Right answers. ``None``: there are none."""
    id: str | None = None
    """Names of the queries. ``None``: made of what is asked, so that equal questions of several files have one name."""
    task: str | None = None
    split: str | None = None

    @property
    def told(self) -> Mapping[str, str]:
        """By column of the outcome table, the column of the file."""
        named = {"query_id": self.id, "reference": self.reference, "task": self.task, "split": self.split}
        return {name: column for name, column in named.items() if column is not None}


def read(path: Path, columns: Columns) -> pa.Table:
    """``query_id``, ``text``, what else the columns tell, and ``asked``; a row for each question, in order.

    Raises:
        BadRequest: the file, a column or a row cannot be used.
    """
    table = foreign.rows(path)
    if not table.num_rows:
        raise BadRequest(f"{path} holds no questions", param="input")
    foreign.require(table, [columns.subject.column, *columns.told.values()], path)
    asked = table[columns.subject.column]
    if pa.types.is_dictionary(asked.type):
        asked = asked.cast(asked.type.value_type)
    if pa.types.is_string(asked.type):
        # One type for all files, so that equal questions are known again.
        asked = asked.cast(pa.large_string())
    found = {"text": pa.array(_texts(asked, columns.subject, path), pa.large_string())}
    for name, column in columns.told.items():
        found[name] = pa.array(_plain(table[column], column, path, name), pa.large_string())
    found.setdefault("query_id", pa.array([named(json.dumps(value)) for value in asked.to_pylist()]))
    _distinct(found["query_id"].to_pylist(), columns, path)
    return pa.table({**found, ASKED: asked})


def prefixed(asked: pa.ChunkedArray, before: str, kind: Kind) -> pa.ChunkedArray:
    """What is asked, with a text before each prompt, or before the last message of the user."""
    if not before:
        return asked
    values = asked.to_pylist()
    put = [_before_last(value, before) if kind == "messages" else before + value for value in values]
    return pa.chunked_array([pa.array(put, asked.type)])


def _before_last(turns: Any, before: str) -> Any:
    """Conversations are lists, or JSON of lists."""
    if isinstance(turns, str):
        return json.dumps(_before_last(json.loads(turns), before))
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "user")
    return [{**turn, "content": before + turn["content"]} if i == last else turn for i, turn in enumerate(turns)]


def named(text: str) -> str:
    """A query's name, made of what is asked; the same for the same text everywhere."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _texts(asked: pa.ChunkedArray, subject: Subject, path: Path) -> list[str]:
    job = Job(model="", input=path, output=path, subject=subject)
    texts = []
    for row, value in enumerate(asked.to_pylist()):
        try:
            texts.append(request(job, Cell(json.dumps(value))).question)
        except (BadRequest, TypeError) as error:
            raise BadRequest(f"row {row} of {path}, column {subject.column!r}: {error}", param="input") from error
    return texts


def _plain(values: pa.ChunkedArray, column: str, path: Path, name: str) -> list[str | None]:
    """Texts of a column of text or numbers."""
    texts = [_text(value) for value in values.to_pylist()]
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        if text is None and (value.is_valid or name == "query_id"):
            raise BadRequest(f"row {row} of {path}, column {column!r}: must be text or a number", param=column)
    return texts


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    return None if value != value else str(value)


def _distinct(names: Sequence[str], columns: Columns, path: Path) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if (before := first.setdefault(name, row)) != row:
            same = "ask the same; name them with --id-column, or remove one"
            if columns.id is not None:
                same = f"have the same {columns.id!r}"
            raise BadRequest(f"rows {before} and {row} of {path} {same}", param="input")
