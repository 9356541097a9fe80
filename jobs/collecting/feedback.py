"""The feedback journal of a service as a table: what was told of answers, one row for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ensemble.errors import BadRequest

_NAMES = {"question": "text", "member": "member", "response": "response"}
_NUMBERS = ("quality", "cost", "input_tokens", "output_tokens", "latency", "propensity")


class Journal(NamedTuple):
    """What a journal holds."""

    table: pa.Table
    """``text``, ``member`` and figures of each outcome, in order."""
    others: int
    """Records of something else, such as preferences: an outcome table has no place for them."""


def read(path: Path) -> Journal:
    """
    Raises:
        BadRequest: the file cannot be read, or a line other than the last, which a crash may have torn, is no record.
    """
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError as error:
        raise BadRequest(f"{path}: the file cannot be read: {error.strerror}", param="input") from error
    records = [_record(line) for line in lines]
    if records and records[-1] is None:
        records.pop()
    for number, record in enumerate(records):
        if record is None:
            raise BadRequest(f"line {number} of {path} is no JSON object", param="input")
    outcomes = [record for record in records if record and record.get("kind", "outcome") == "outcome"]
    rows = [{name: record.get(own) for own, name in _NAMES.items()} | _figures(record) for record in outcomes]
    types = [(name, pa.string()) for name in _NAMES.values()] + [(name, pa.float64()) for name in _NUMBERS]
    return Journal(_table(rows, pa.schema(types), path), len(records) - len(outcomes))


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
