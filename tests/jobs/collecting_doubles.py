"""Batch jobs without a cluster: answers are dictated, folders and journals are the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.schema import Configuration
from ensemble.errors import EnsembleError
from jobs import application, batch
from jobs.inputs import opened
from jobs.job import Job
from jobs.journal import Index, Writer
from jobs.recorder import Counts
from jobs.results import Folder, Summary

Answer = Callable[[str, str], str]
"""What a member says to a question."""


class Answerers:
    """Stands in for a served configuration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        """(member, question) in the order of asking."""
        self.served: list[str] = []
        """For whom the configuration was brought up."""
        self.seeds: list[int | None] = []
        """Of each job."""
        self.last: int | None = None
        """Answers after which it is lost; ``None``: none."""
        monkeypatch.setattr(batch, "run", self._run)
        monkeypatch.setattr(application, "serving", self._serving)

    @contextmanager
    def _serving(self, configuration: Configuration, model: str, *_: Any) -> Iterator[None]:
        self.served.append(model)
        yield

    def _run(self, configuration: Configuration, job: Job, *, progress: Callable[[Counts], None], **_: Any) -> Summary:
        source = opened(job.input)
        folder = Folder(job, job.identity(configuration, source.digest), source)
        with folder.claimed():
            if folder.complete is not None:
                return folder.complete
            assert self.served, "nothing is served"
            self.seeds.append(job.sampling.seed)
            done = Index(folder.journal, source.rows).done
            writer = Writer(folder.journal)
            cells = (cell for chunk in source.cells(job.subject.column) for cell in chunk)
            for row, cell in enumerate(cells):
                if not done[row]:
                    writer.write([{"row": row, **self._record(job.model, json.loads(str(cell.value)))}])
            writer.close()
            progress(Counts(source.rows, source.rows, 0, int(done.sum())))
            return folder.compact()

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
