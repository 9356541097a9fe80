"""A batch job: every row of a file put to a model or an ensemble, each exactly once, over Ray Data.

    input ──▶ blocks of rows ──▶ workers ──▶ the served model
                                    │
                                    ▼
                  recorder: one journal line for each row, on disk before the row counts
                                    │  when no row is missing
                                    ▼
                  Parquet files in the order of the input

A row is written down by the worker's recorder, not by whoever reads the data set's output: Ray Data hands finished
rows on by the block, and its checkpoints are by the block too, so that a crash would cost all rows of all blocks under
way. This way it costs the rows under way. Whatever is asked again, by Ray Data after the loss of a machine or by a
second run, the recorder's list of finished rows goes before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from cluster import local
from cluster.schema import Configuration
from ensemble.errors import BadRequest, EnsembleError
from jobs.application import serving
from jobs.asking import Target, Worker
from jobs.inputs import Input, opened
from jobs.job import Job
from jobs.journal import Index
from jobs.recorder import Counts, Recorder
from jobs.results import Folder, Summary

Progress = Callable[[Counts], None]
"""Told how far the job has come, about twice a second."""

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
    job.check(configuration)
    for name, value in (("concurrency", concurrency), ("attempts", attempts)):
        if value < 1:
            raise BadRequest(f"{name} must be at least 1", param=name)
    source = _source(job)
    folder = Folder(job, job.identity(configuration, source.digest), source)
    with folder.claimed():
        if folder.complete is not None:
            return folder.complete
        if not Index(folder.journal, source.rows).done.all():
            with serving(configuration, job.model, address, starting) as target:
                _ask(job, source, folder, target, concurrency, attempts, progress)
        return folder.compact()


def _source(job: Job) -> Input:
    source = opened(job.input)
    source.require(job.subject.column)
    if job.id_column is not None:
        source.require_distinct(job.id_column)
    if taken := [name for name in job.columns if name in source.schema.names]:
        raise BadRequest(f"{job.input} already has columns {', '.join(taken)}; give a prefix", param="prefix")
    return source


def _ask(
    job: Job,
    source: Input,
    folder: Folder,
    target: Target,
    concurrency: int,
    attempts: int,
    progress: Progress | None,
) -> None:
    """Every row that is missing in the journal is in it afterwards."""
    workers = -(-concurrency // _PER_WORKER)
    share = concurrency // workers
    with _recording(folder, source, concurrency) as recorder, _told(), DataContext.current(_context()):
        ray.get(recorder.counts.remote())
        rows = ray.data.read_datasource(
            _Rows(source, job.subject.column), num_cpus=0, label_selector=_here(), override_num_blocks=1
        )
        answered = rows.map_batches(
            Worker,
            fn_constructor_args=(recorder, target, job, share, attempts),
            # Two shares of rows in a batch and several batches at a time: a slow row never leaves a place empty.
            batch_size=2 * share,
            compute=ActorPoolStrategy(size=workers, max_concurrent_calls_per_actor=2),
            num_cpus=0,
        )
        with _watched(recorder, progress):
            for _ in answered.iter_batches(batch_size=None):
                pass
        counts = ray.get(recorder.counts.remote())
        ray.get(recorder.close.remote())
    if counts.done < counts.rows:
        raise Interrupted(f"{counts.rows - counts.done} rows were left over")


@contextmanager
def _recording(folder: Folder, source: Input, concurrency: int) -> Iterator[Any]:
    """The recorder's actor, on this machine; gone afterwards."""
    actor = ray.remote(Recorder).options(
        num_cpus=0,
        label_selector=_here(),
        max_concurrency=2 * concurrency + 100,
        max_restarts=-1,
        max_task_retries=-1,
    )
    recorder = actor.remote(folder.journal, source.rows)
    try:
        yield recorder
    finally:
        ray.kill(recorder)


def _here() -> dict[str, str]:
    """Selects this machine: the only one that must see input and output."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


class _Rows(Datasource):  # type: ignore[misc]
    """One column of the input with the position of each row, as a stream of small blocks."""

    def __init__(self, source: Input, column: str) -> None:
        super().__init__()
        self._source, self._column = source, column

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task: rows are asked far slower than one process reads them."""
        metadata = BlockMetadata(num_rows=self._source.rows, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._blocks, metadata)]

    def _blocks(self) -> Iterator[pa.Table]:
        row = 0
        for cells in self._source.cells(self._column):
            yield pa.table(
                {
                    "row": pa.array(range(row, row + len(cells)), pa.int64()),
                    "value": pa.array([cell.value for cell in cells], pa.string()),
                    "problem": pa.array([cell.problem for cell in cells], pa.string()),
                }
            )
            row += len(cells)


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
def _watched(recorder: Any, progress: Progress | None) -> Iterator[None]:
    """Tell how far the job is while it runs, and once more at its end."""
    done = threading.Event()

    def watch() -> None:
        last = False
        while progress is not None and not last:
            last = done.wait(_LOOK_AGAIN)
            with suppress(RayError):
                progress(ray.get(recorder.counts.remote(), timeout=5))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
