"""The feedback journal of a service as a table: what was told of answers, one row for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from deployments.segments import files
from ensemble.errors import BadRequest

_NAMES = {"question": "text", "member": "member", "response": "response"}
_NUMBERS = ("quality", "cost", "input_tokens", "output_tokens", "latency", "propensity")


class Journal(NamedTuple):
    """What a journal holds."""

    table: pa.Table
    """``text``, ``member`` and figures of each outcome, in order."""
    preferences: int
    """Records that say which of two answers was better: an outcome table has no place for them."""
    through: int
    """Number of the last piece of feedback, of either kind; 0: there is none."""


def read(path: Path) -> Journal:
    """
    Args:
        path: of the first file; those that the service has begun after it are read as well.

    Raises:
        BadRequest: a file cannot be read, or a line other than the last, which a crash may have torn, is no record.
    """
    records = _records(path)
    outcomes = [record for record in records if record.get("kind", "outcome") == "outcome"]
    rows = [{name: record.get(own) for own, name in _NAMES.items()} | _figures(record) for record in outcomes]
    types = [(name, pa.string()) for name in _NAMES.values()] + [(name, pa.float64()) for name in _NUMBERS]
    preferences = sum(record.get("kind") == "preference" for record in records)
    # Who has answered what is written beside feedback, without a number.
    numbers = [number for record in records if isinstance(number := record.get("sequence"), int)]
    return Journal(_table(rows, pa.schema(types), path), preferences, max(numbers, default=0))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        told = [(file, *line) for file in files(path) for line in enumerate(file.read_bytes().split(b"\n"))]
    except OSError as error:
        raise BadRequest(f"{path}: the file cannot be read: {error.strerror}", param="input") from error
    read = [(file, number, _record(line)) for file, number, line in told if line.strip()]
    if read and read[-1][2] is None:
        read.pop()
    for file, number, record in read:
        if record is None:
            raise BadRequest(f"line {number} of {file} is no JSON object", param="input")
    return [record for _, _, record in read if record is not None]


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    """Numbers; ``tokens`` may tell read and written ones together."""
    tokens = record.get("tokens")
    both = tokens if isinstance(tokens, list) and len(tokens) == 2 else (None, None)
    apart = dict(zip(("input_tokens", "output_tokens"), both, strict=True))
    return {name: apart.get(name) if record.get(name) is None else record[name] for name in _NUMBERS}


def _table(rows: list[dict[str, Any]], schema: pa.Schema, path: Path) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadRequest(f"{path} holds a record that is no outcome: {error}", param="input") from error


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
