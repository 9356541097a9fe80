"""The rows of jobs as one data set, in which the jobs take turns.

Knows nothing of who is asked, nor of which rows are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, repeat, zip_longest
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from jobs.inputs import CHUNK, Cell, Input

Column = tuple[Input, str]
"""A file, and the column of it that says what is asked."""


class Rows(Datasource):  # type: ignore[misc]
    """``job``, ``row``, ``value`` and ``problem`` of each row, as a stream of small blocks."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """
        Args:
            columns: what each job reads; a file that several jobs read is read once.
        """
        super().__init__()
        self._count = sum(source.rows for source, _ in columns)
        self._readers: list[tuple[Column, list[int]]] = []
        for job, column in enumerate(columns):
            readers = next((jobs for known, jobs in self._readers if known == column), None)
            if readers is None:
                self._readers.append((column, [job]))
            else:
                readers.append(job)

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task: rows are asked far slower than one process reads them."""
        metadata = BlockMetadata(num_rows=self._count, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self.blocks, metadata)]

    def blocks(self) -> Iterator[pa.Table]:
        """The first rows of all jobs, then the second ones, and so on."""
        turns = self._turns()
        while block := list(islice(turns, CHUNK)):
            jobs, rows, cells = zip(*block, strict=True)
            yield pa.table(
                {
                    "job": pa.array(jobs, pa.int64()),
                    "row": pa.array(rows, pa.int64()),
                    "value": pa.array([cell.value for cell in cells], pa.string()),
                    "problem": pa.array([cell.problem for cell in cells], pa.string()),
                }
            )

    def _turns(self) -> Iterator[tuple[int, int, Cell]]:
        """Job, row and cell."""
        streams = [zip(repeat(jobs), _numbered(*column), strict=False) for column, jobs in self._readers]
        for turn in zip_longest(*streams):
            for jobs, (row, cell) in filter(None, turn):
                yield from ((job, row, cell) for job in jobs)


def _numbered(source: Input, column: str) -> Iterator[tuple[int, Cell]]:
    return enumerate(cell for chunk in source.cells(column) for cell in chunk)
