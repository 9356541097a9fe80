"""Batch jobs without a cluster: answers are dictated, folders and journals are the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.schema import Configuration
from ensemble.errors import EnsembleError
from jobs import application, batch
from jobs.journal import Index, Writer
from jobs.recorder import Counts
from jobs.rows import Rows

Answer = Callable[[str, str], str]
"""What a member says to a question."""


class Answerers:
    """Stands in for a served configuration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        """(member, question) in the order of asking."""
        self.served: list[list[str]] = []
        """What was brought up together."""
        self.seeds: list[int | None] = []
        """Of each job that was asked for."""
        self.last: int | None = None
        """Answers after which it is lost; ``None``: none."""
        monkeypatch.setattr(batch, "_ask", self._ask)
        monkeypatch.setattr(application, "serving", self._serving)

    @contextmanager
    def _serving(self, configuration: Configuration, names: Sequence[str], *_: Any) -> Iterator[dict[str, str]]:
        self.served.append(list(names))
        yield {name: name for name in names}

    def _ask(self, works: Sequence[Any], targets: Mapping[str, str], *amounts: Any) -> None:
        indices = [Index(work.folder.journal, work.source.rows) for work in works]
        writers = [Writer(work.folder.journal) for work in works]
        self.seeds += [work.job.sampling.seed for work in works]
        for block in Rows([work.column for work in works]).blocks():
            for cell in block.to_pylist():
                job, row = cell["job"], cell["row"]
                if not indices[job].done[row]:
                    record = self._record(targets[works[job].job.model], json.loads(cell["value"]))
                    writers[job].write([{"row": row, **record}])
        for writer in writers:
            writer.close()
        rows = sum(work.source.rows for work in works)
        amounts[-1](Counts(rows, rows, 0, sum(int(index.done.sum()) for index in indices)))

    def _record(self, member: str, question: str) -> dict[str, Any]:
        if self.last is not None and len(self.asked) >= self.last:
            raise batch.Interrupted("the machine was lost")
        self.asked.append((member, question))
        shared = {"usage": {member: [1, 10, 4, "0.5"]}, "seconds": 0.25}
        try:
            return {"text": self.answer(member, question), "finish_reason": "stop", **shared}
        except EnsembleError as error:
            return {"error": {"code": error.code, "message": error.message}, **shared}


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of questions."""
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
