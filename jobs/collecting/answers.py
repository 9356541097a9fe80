"""The answers of a collection: a batch job for each member and sample, whose folders keep what is asked only once.

Knows nothing of right and wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from cluster.schema import Configuration
from ensemble.errors import BadRequest
from ensemble.request import Sampling
from jobs.collecting.prices import parted, priced
from jobs.collecting.questions import ASKED, Columns, prefixed
from jobs.job import Job, Kind, Subject

FOLDER = "_answers"
"""In the output folder; what is kept between runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Whom to ask, how and how often."""

    members: tuple[str, ...]
    """Names of models and ensembles of the configuration; ``name|strategy`` is one that is asked by a strategy."""
    output: Path
    columns: Columns = field(default_factory=Columns)
    samples: int = 1
    """Answers of each member to each question."""
    sampling: Sampling = field(default_factory=Sampling)
    """A sample after the first has a seed of its own, where there is one."""
    strategies: Mapping[str, str] = field(default_factory=dict)
    """Text that is put before the question, by strategy."""

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the output folder this collection's, and keep other runs out.

        Raises:
            BadRequest: it holds something else, or another run is at work in it.
        """
        folder = self.output / FOLDER
        if self.output.exists() and not folder.is_dir() and (not self.output.is_dir() or any(self.output.iterdir())):
            rule = f"{self.output} holds what is no collection's; give a new or empty folder"
            raise BadRequest(rule, param="output")
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "collect.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BadRequest(f"{self.output}: another run is at work here", param="output") from error
        try:
            yield
        finally:
            lock.release()

    @property
    def jobs(self) -> Mapping[tuple[str, int], Job]:
        """By member and sample."""
        return {(name, sample): self._job(name, sample) for sample in range(self.samples) for name in self.members}

    def _job(self, member: str, sample: int) -> Job:
        seed = None if self.sampling.seed is None else self.sampling.seed + sample
        kind: Kind = self.columns.subject.kind
        base, strategy = parted(member)
        return Job(
            model=base,
            input=self.output / FOLDER / _file(strategy),
            output=self.output / FOLDER / quote(member, safe=" ") / str(sample),
            subject=Subject(kind, ASKED),
            sampling=replace(self.sampling, seed=seed),
        )

    def check(self, configuration: Configuration) -> None:
        """Refuse what the configuration does not allow.

        Raises:
            BadRequest: no member, one named twice or unknown, or samples that would all be equal.
        """
        if not self.members:
            names = ", ".join((*configuration.bases, *configuration.ensembles))
            raise BadRequest(f"name the members to ask; there are: {names}", param="members")
        if len(set(self.members)) < len(self.members):
            raise BadRequest("a member is named twice; allowed: each once", param="members")
        if self.samples > 1 and self.sampling.greedy:
            rule = "several samples of a greedy answer are the same; give a temperature above 0"
            raise BadRequest(rule, param="samples")
        self._check_strategies()
        for job in self.jobs.values():
            job.check(configuration)

    def _check_strategies(self) -> None:
        used = {strategy for _, strategy in map(parted, self.members) if strategy}
        if strange := sorted(used - set(self.strategies)):
            has = ", ".join(self.strategies) or "none"
            raise BadRequest(f"no strategy is named {strange[0]!r}; there are: {has}", param="strategy")
        if idle := [name for name in self.strategies if name not in used]:
            rule = f"no member is asked by the strategy {idle[0]!r}; name one MEMBER|{idle[0]}"
            raise BadRequest(rule, param="strategy")

    def put(self, questions: pa.Table) -> None:
        """Write what is asked, for the jobs to read; equal questions give equal files."""
        folder = self.output / FOLDER
        for strategy, before in {"": "", **self.strategies}.items():
            put = prefixed(questions[ASKED], before, self.columns.subject.kind)
            asked = pa.table({"query_id": questions["query_id"], ASKED: put})
            beside = folder / ".questions.part"
            pq.write_table(asked, beside)
            beside.replace(folder / _file(strategy))


def _file(strategy: str) -> str:
    return f"questions-{quote(strategy, safe=' ')}.parquet" if strategy else "questions.parquet"


def cells(plan: Plan, configuration: Configuration) -> pa.Table:
    """All answers, as cells of an outcome table without a quality; every job must be complete."""
    return pa.concat_tables(
        [_cells(job, name, sample, priced(configuration, job.model)) for (name, sample), job in plan.jobs.items()]
    )


def _cells(job: Job, member: str, sample: int, priced: bool) -> pa.Table:
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(job.output.glob("part-*.parquet"))])
    totals, error, missing = rows["totals"], rows["error"], pa.nulls(len(rows), pa.large_string())
    told = pc.binary_join_element_wise(_part(error, "code"), _part(error, "message"), ": ")
    return pa.table(
        {
            "query_id": rows["query_id"],
            "member": pa.array([member] * len(rows), pa.string()),
            "sample": pa.array([sample] * len(rows), pa.int32()),
            "response": rows["text"].cast(pa.large_string()),
            "input_tokens": _part(totals, "prompt_tokens").cast(pa.float64()),
            "output_tokens": _part(totals, "completion_tokens").cast(pa.float64()),
            "cost": _part(totals, "cost").cast(pa.float64()) if priced else pa.nulls(len(rows), pa.float64()),
            "latency": rows["seconds"],
            "error": told.cast(pa.large_string()) if error.null_count < len(rows) else missing,
        }
    )


def _part(values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return pc.struct_field(values, name)
