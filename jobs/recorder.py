"""The one process that writes the journals of jobs, and the one authority on which rows are finished.

It runs on the machine of the output folders, so that no other machine of the cluster need see them. A lock on
each folder keeps what a killed run left behind from writing beside its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ensemble.errors import ConfigurationError
from jobs.journal import Index, Record, Writer

_PREDECESSOR = 60.0
"""Seconds that a killed run's recorder has to go away."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a job has come."""

    rows: int
    """Of the input."""
    done: int
    """Rows in the journal."""
    failed: int
    """Of those, rows with an error."""
    resumed: int = 0
    """Of those, rows that an earlier run had finished."""


def total(parts: Iterable[Counts]) -> Counts:
    """Of several jobs together.

    >>> total([Counts(3, 2, 1), Counts(5, 5, 0, 4)])
    Counts(rows=8, done=7, failed=1, resumed=4)
    """
    return Counts(*(sum(numbers) for numbers in zip(*map(astuple, [Counts(0, 0, 0), *parts]), strict=True)))


class Recorder:
    """Of one job."""

    def __init__(self, folder: Path, rows: int) -> None:
        """
        Raises:
            ConfigurationError: another recorder writes to the folder and does not go away.
        """
        self._lock = FileLock(folder / "recorder.lock")
        try:
            self._lock.acquire(timeout=_PREDECESSOR)
        except Timeout as error:
            raise ConfigurationError(f"{folder.parent}: another run still writes here") from error
        index = Index(folder, rows)
        self._done = index.done
        self._count = self._resumed = int(self._done.sum())
        self._failed = index.failed
        self._writer = Writer(folder)
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._broken: OSError | None = None

    async def missing(self, rows: Sequence[int]) -> list[int]:
        """Those that are not finished."""
        return [row for row in rows if not self._done[row]]

    async def append(self, record: Record) -> None:
        """Returns when the record is on disk; a row that is finished already is left as it is.

        Records that come while others are written go to disk together, so nothing waits for a timer.

        Raises:
            OSError: the journal cannot be written; nothing more is accepted then, as a line may be torn.
        """
        finished = asyncio.get_running_loop().create_future()
        self._waiting.append((record, finished))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await finished

    async def _write(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            new = {record["row"]: record for record, _ in reversed(waiting) if not self._done[record["row"]]}
            try:
                if new:
                    await self._on_disk(list(new.values()))
            except OSError as error:
                self._settle(waiting, error)
                continue
            for row, record in new.items():
                self._done[row] = True
                self._failed += record.get("error") is not None
            self._count += len(new)
            self._settle(waiting, None)
        self._writing = None

    async def _on_disk(self, records: list[Record]) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            await asyncio.to_thread(self._writer.write, records)
        except OSError as error:
            self._broken = error
            raise

    @staticmethod
    def _settle(waiting: list[tuple[Record, asyncio.Future[None]]], error: OSError | None) -> None:
        for _, finished in waiting:
            if finished.cancelled():
                continue
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error)

    async def counts(self) -> Counts:
        return Counts(len(self._done), self._count, self._failed, self._resumed)

    async def close(self) -> None:
        """Let go of the folder; nothing may be appended any more."""
        self._writer.close()
        self._lock.release()


class Recorders:
    """Those of several jobs, by their positions. Ray makes an asynchronous actor of it."""

    def __init__(self, journals: Sequence[tuple[Path, int]]) -> None:
        """
        Args:
            journals: folder and number of rows of each job.

        Raises:
            ConfigurationError: another recorder writes to a folder and does not go away.
        """
        self._of = [Recorder(folder, rows) for folder, rows in journals]

    async def missing(self, job: int, rows: Sequence[int]) -> list[int]:
        """Rows of a job that are not finished."""
        return await self._of[job].missing(rows)

    async def append(self, job: int, record: Record) -> None:
        """Returns when the record is on disk; see ``Recorder.append``."""
        await self._of[job].append(record)

    async def counts(self) -> Counts:
        """Of all jobs together."""
        return total([await recorder.counts() for recorder in self._of])

    async def close(self) -> None:
        """Let go of the folders; nothing may be appended any more."""
        for recorder in self._of:
            await recorder.close()
