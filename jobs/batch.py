"""Batch jobs: every row of a file put to a model or an ensemble, each exactly once, over Ray Data.

    input ──▶ blocks of rows ──▶ workers ──▶ the served model
                                    │
                                    ▼
                  recorder: one journal line for each row, on disk before the row counts
                                    │  when no row is missing
                                    ▼
                  Parquet files in the order of the input

Several jobs go round: a row of each, then the next of each, so that all their models are asked at once.

A row is written down by the worker's recorder, not by whoever reads the data set's output: Ray Data hands finished
rows on by the block, and its checkpoints are by the block too, so that a crash would cost all rows of all blocks under
way. This way it costs the rows under way. Whatever is asked again, by Ray Data after the loss of a machine or by a
second run, the recorder's list of finished rows goes before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from cluster import local
from cluster.schema import Configuration
from ensemble.errors import BadRequest, EnsembleError
from jobs.application import serving
from jobs.asking import Asked, Target, Worker
from jobs.inputs import Input, opened
from jobs.job import Job
from jobs.journal import Index
from jobs.recorder import Counts, Recorders, total
from jobs.results import Folder, Summary
from jobs.rows import Rows

Progress = Callable[[Counts], None]
"""Told how far the jobs have come, about twice a second."""
Serve = Callable[[Sequence[str]], AbstractContextManager[Mapping[str, Target]]]
"""Has models and ensembles of these names served meanwhile, and says where each is asked."""

_LOOK_AGAIN = 0.5
_PER_WORKER = 256
"""Rows that one worker process keeps under way; more are shared out."""
_BLOCK_BYTES = 64 * 2**10
"""Size of a block of questions: small, so that all workers have some."""


class Interrupted(EnsembleError):
    """The job ended before its rows did; what is finished is kept."""

    code = "interrupted"


def run(
    configuration: Configuration,
    job: Job,
    *,
    address: str | None = None,
    concurrency: int = 8,
    attempts: int = 6,
    progress: Progress | None = None,
    starting: local.Progress | None = None,
) -> Summary:
    """Carry a job out, or on; a complete one is not done again.

    Args:
        address: of a running Ray cluster (``auto``: the one on this machine); ``None`` takes the one that this
            process is connected to, or starts one.
        concurrency: rows under way at a time, at most.
        attempts: times that a row is asked at most, while its errors are such that a retry may help.
        starting: told the states of deployments that are brought up.

    Raises:
        BadRequest: the job is refused; nothing was started.
        ConfigurationError: the model could not be brought up.
        Interrupted: the job could not go on; run it again to go on from there.
    """

    def serve(names: Sequence[str]) -> AbstractContextManager[Mapping[str, Target]]:
        return serving(configuration, names, address, starting)

    (summary,) = run_all(configuration, [job], serve, concurrency=concurrency, attempts=attempts, progress=progress)
    return summary


def run_all(
    configuration: Configuration,
    jobs: Sequence[Job],
    serve: Serve,
    *,
    concurrency: int = 8,
    attempts: int = 6,
    progress: Progress | None = None,
) -> list[Summary]:
    """Carry jobs out, or on, all at the same time; complete ones are not done again.

    Args:
        serve: called once with the models of all jobs that miss rows, where there are some.
        concurrency: rows under way at a time at one model, at most.

    Raises:
        As ``run``.
    """
    for name, value in (("concurrency", concurrency), ("attempts", attempts)):
        if value < 1:
            raise BadRequest(f"{name} must be at least 1", param=name)
    works = _works(configuration, jobs)
    with ExitStack() as claims:
        for work in works:
            claims.enter_context(work.folder.claimed())
        counts = [work.counts() for work in works]
        missing = [work for work, found in zip(works, counts, strict=True) if found.done < found.rows]
        before = total(found for found in counts if found.done == found.rows)

        def tell(now: Counts) -> None:
            if progress is not None:
                progress(total([before, now]))

        if missing:
            with serve(list(dict.fromkeys(work.job.model for work in missing))) as targets:
                _ask(missing, targets, concurrency, attempts, tell)
        return [work.folder.complete or work.folder.compact() for work in works]


@dataclass(frozen=True, slots=True)
class _Work:
    """A job with what it reads and writes."""

    job: Job
    source: Input
    folder: Folder

    @property
    def column(self) -> tuple[Input, str]:
        """Where its rows say what they ask."""
        return self.source, self.job.subject.column

    def counts(self) -> Counts:
        """What earlier runs have done of it."""
        rows, summary = self.source.rows, self.folder.complete
        if summary is not None:
            return Counts(rows, rows, summary.failed.total(), rows)
        index = Index(self.folder.journal, rows)
        done = int(index.done.sum())
        return Counts(rows, done, index.failed, done)


def _works(configuration: Configuration, jobs: Sequence[Job]) -> list[_Work]:
    for job in jobs:
        job.check(configuration)
    sources = {path: opened(path) for path in dict.fromkeys(job.input for job in jobs)}
    works = []
    for job in jobs:
        source = sources[job.input]
        _require(job, source)
        works.append(_Work(job, source, Folder(job, job.identity(configuration, source.digest), source)))
    return works


def _require(job: Job, source: Input) -> None:
    source.require(job.subject.column)
    if job.id_column is not None:
        source.require_distinct(job.id_column)
    if taken := [name for name in job.columns if name in source.schema.names]:
        raise BadRequest(f"{job.input} already has columns {', '.join(taken)}; give a prefix", param="prefix")


def _ask(
    works: Sequence[_Work], targets: Mapping[str, Target], concurrency: int, attempts: int, progress: Progress
) -> None:
    """Every row that is missing in a journal is in it afterwards."""
    models = len({work.job.model for work in works})
    workers = min(-(-concurrency * models // _PER_WORKER), concurrency)
    share = concurrency // workers
    with _recording(works, concurrency * models) as recorders, _told(), DataContext.current(_context()):
        ray.get(recorders.counts.remote())
        rows = ray.data.read_datasource(
            Rows([work.column for work in works]), num_cpus=0, label_selector=_here(), override_num_blocks=1
        )
        answered = rows.map_batches(
            Worker,
            fn_constructor_args=(recorders, [Asked(w.job, targets[w.job.model]) for w in works], share, attempts),
            # Two shares of rows in a batch and several batches at a time: a slow row never leaves a place empty.
            batch_size=2 * share * models,
            compute=ActorPoolStrategy(size=workers, max_concurrent_calls_per_actor=2),
            num_cpus=0,
        )
        with _watched(recorders, progress):
            for _ in answered.iter_batches(batch_size=None):
                pass
        counts = ray.get(recorders.counts.remote())
        ray.get(recorders.close.remote())
    if counts.done < counts.rows:
        raise Interrupted(f"{counts.rows - counts.done} rows were left over")


@contextmanager
def _recording(works: Sequence[_Work], under_way: int) -> Iterator[Any]:
    """The recorders' actor, on this machine; gone afterwards."""
    actor = ray.remote(Recorders).options(
        num_cpus=0,
        label_selector=_here(),
        max_concurrency=2 * under_way + 100,
        max_restarts=-1,
        max_task_retries=-1,
    )
    recorders = actor.remote([(work.folder.journal, work.source.rows) for work in works])
    try:
        yield recorders
    finally:
        ray.kill(recorders)


def _here() -> dict[str, str]:
    """Selects this machine: the only one that must see inputs and outputs."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _context() -> DataContext:
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    return context


@contextmanager
def _told() -> Iterator[None]:
    """What went wrong, without Ray's wrappings."""
    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while isinstance(cause, RayError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, EnsembleError):
            raise cause from error
        raise Interrupted(str(cause or error)) from error


@contextmanager
def _watched(recorders: Any, progress: Progress) -> Iterator[None]:
    """Tell how far the jobs are while they run, and once more at their end."""
    done = threading.Event()

    def watch() -> None:
        last = False
        while not last:
            last = done.wait(_LOOK_AGAIN)
            with suppress(RayError):
                progress(ray.get(recorders.counts.remote(), timeout=5))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
