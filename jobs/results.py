"""The output folder: whose it is, the journal while the job runs, and the Parquet files when it is done.

_job.json        what makes a job this one, from the start
_journal/        while rows are missing; gone when the job is complete
part-*.parquet   all rows in the order of the input
_manifest.json   counts and usage; written last, so where it is the job is complete
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Context, Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ensemble.errors import BadRequest
from ensemble.request import Usage, total
from jobs.inputs import Input
from jobs.job import Job
from jobs.journal import Index, Record, sync

CHUNKS_IN_FILE = 64
"""Chunks of the input that make one Parquet file: 262,144 rows."""

_COST = pa.decimal128(38, 18)
_AMOUNTS = [("calls", pa.int64()), ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()), ("cost", _COST)]
_WEIGHTS = pa.list_(pa.struct([("member", pa.string()), ("weight", pa.float64())]))
TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "finish_reason": pa.string(),
    "usage": pa.list_(pa.struct([("member", pa.string()), *_AMOUNTS])),
    "totals": pa.struct(_AMOUNTS),
    "error": pa.struct([("code", pa.string()), ("message", pa.string())]),
    "seconds": pa.float64(),
    "credits": pa.list_(pa.struct([("text", pa.string()), ("members", _WEIGHTS)])),
}
"""Arrow type of each column that a job adds. Costs are rounded to 18 decimals."""


@dataclass
class Summary:
    """What a complete job came to."""

    rows: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Rows by code of their error."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """By model."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        usage = {
            member: {"calls": u.calls, "prompt_tokens": u.prompt_tokens, "completion_tokens": u.completion_tokens}
            | {"cost": str(u.cost)}
            for member, u in sorted(self.usage.items())
        }
        return {"rows": self.rows, "failed": dict(sorted(self.failed.items())), "usage": usage}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Summary:
        """From what ``as_dict`` gave."""
        usage = {member: Usage(**{**u, "cost": Decimal(u["cost"])}) for member, u in data["usage"].items()}
        return cls(data["rows"], Counter(data["failed"]), usage)

    def add(self, record: Record) -> None:
        self.rows += 1
        if record.get("error"):
            self.failed[record["error"]["code"]] += 1
        for member, usage in _usage(record).items():
            self.usage[member] = self.usage.get(member, Usage()) + usage


class Folder:
    """The output folder of one job."""

    def __init__(self, job: Job, identity: Mapping[str, Any], source: Input) -> None:
        self._path = job.output
        self._job, self._identity, self._source = job, identity, source
        self.journal = job.output / "_journal"
        self._manifest = job.output / "_manifest.json"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder this job's, and keep other runs out.

        Raises:
            BadRequest: the folder holds something else, or another run is at work in it.
        """
        self._refuse_another()
        self.journal.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.journal / "run.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BadRequest(f"{self._path}: another run is at work here", param="output") from error
        try:
            self._put(self._path / "_job.json", self._identity)
            yield
        finally:
            lock.release()
            if self._manifest.exists():
                shutil.rmtree(self.journal)

    def _refuse_another(self) -> None:
        marker = self._path / "_job.json"
        if self._path.exists() and not self._path.is_dir():
            raise BadRequest(f"{self._path} is no folder", param="output")
        if marker.exists():
            before = json.loads(marker.read_text())
            if differing := [key for key, value in self._identity.items() if before.get(key) != value]:
                raise BadRequest(
                    f"{self._path} holds another job, with a different {', '.join(differing)}; "
                    "give another folder, or remove this one",
                    param="output",
                )
        elif self._path.exists() and {path.name for path in self._path.iterdir()} - {"_journal"}:
            raise BadRequest(f"{self._path} holds files that are no job's; give a new or empty folder", param="output")

    @property
    def complete(self) -> Summary | None:
        """What the job came to, if it is complete."""
        return Summary.of(json.loads(self._manifest.read_text())) if self._manifest.exists() else None

    def compact(self, *, chunks_in_file: int = CHUNKS_IN_FILE) -> Summary:
        """Write the Parquet files and the manifest from input and journal; every row must be in the journal.

        Each file appears whole or not at all. A run that is killed meanwhile does it again.
        """
        self._source.require_unchanged()
        summary = Summary()
        records = Index(self.journal, self._source.rows).records()
        tables = (self._joined(table, records, summary) for table in self._source.tables())
        names: list[str] = []
        while not names or summary.rows < self._source.rows:
            names.append(f"part-{len(names):05}.parquet")
            self._write(names[-1], islice(tables, chunks_in_file))
        self._put(self._manifest, {**summary.as_dict(), "files": names, "job": self._identity})
        return summary

    def _joined(self, table: pa.Table, records: Iterator[Record], summary: Summary) -> pa.Table:
        chunk = list(islice(records, len(table)))
        for record in chunk:
            summary.add(record)
        for name, values in columns(chunk, credits=self._job.credits).items():
            table = table.append_column(self._job.prefix + name, values)
        return table

    def _write(self, name: str, tables: Iterator[pa.Table]) -> None:
        temporary = self.journal / name
        added = [(self._job.prefix + n, t) for n, t in TYPES.items() if n != "credits" or self._job.credits]
        schema = pa.schema([*self._source.schema, *(pa.field(*column) for column in added)])
        with pq.ParquetWriter(temporary, schema) as writer:
            for table in tables:
                writer.write_table(table.cast(schema))
        _placed(temporary, self._path / name)

    def _put(self, path: Path, values: Mapping[str, Any]) -> None:
        temporary = self.journal / path.name
        temporary.write_text(json.dumps(values, indent=2) + "\n")
        _placed(temporary, path)


def columns(records: list[Record], *, credits: bool) -> dict[str, pa.Array]:
    """The added columns of some rows."""
    usages = [_usage(record) for record in records]
    values: dict[str, list[Any]] = {name: [record.get(name) for record in records] for name in TYPES}
    values["usage"] = [[{"member": m, **_amounts(u)} for m, u in usage.items()] for usage in usages]
    values["totals"] = [_amounts(total(usage.values())) for usage in usages]
    values["credits"] = [_credits(record) for record in records]
    return {name: pa.array(values[name], type_) for name, type_ in TYPES.items() if credits or name != "credits"}


def _usage(record: Record) -> dict[str, Usage]:
    return {
        member: Usage(calls, read, written, Decimal(cost))
        for member, (calls, read, written, cost) in record["usage"].items()
    }


def _amounts(usage: Usage) -> dict[str, Any]:
    cost = usage.cost.quantize(Decimal(1).scaleb(-_COST.scale), context=Context(prec=_COST.precision))
    counts = {"calls": usage.calls, "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return {**counts, "cost": cost}


def _credits(record: Record) -> list[dict[str, Any]] | None:
    if record.get("credits") is None:
        return None
    return [
        {"text": text, "members": [{"member": m, "weight": w} for m, w in members.items()]}
        for text, members in record["credits"]
    ]


def _placed(temporary: Path, path: Path) -> None:
    """Move a file to its place so that a crash leaves either all of it there or nothing."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)
