"""The journal of a running job: one line for each finished row, on disk before the row counts as finished.

Each writer has a file of its own, so that a line torn by a crash stays the last of its file; lines that cannot be read
are no rows. Of several lines for one row the first counts. Knows nothing of what the lines say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Record = dict[str, Any]
"""JSON values; ``row`` is the row's position."""

_NOWHERE = -1


class Writer:
    """Appends records to a new file of the folder."""

    def __init__(self, folder: Path) -> None:
        number = max((int(path.stem) for path in files(folder)), default=-1) + 1
        self._file = (folder / f"{number:06}.jsonl").open("xb")
        sync(folder)

    def write(self, records: Sequence[Record]) -> None:
        """Returns when the records are on disk.

        Raises:
            OSError: they may not be, or in part.
        """
        self._file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Index:
    """Where each row's record is: eight bytes for each row of the input, whatever the rows hold."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._files = files(folder)
        self._at: npt.NDArray[np.int64] = np.full(rows, _NOWHERE, np.int64)
        self.failed = 0
        """Rows that ended with an error."""
        start = 0
        for path in self._files:
            for offset, record in _records(path):
                row = record["row"]
                if 0 <= row < rows and self._at[row] == _NOWHERE:
                    self._at[row] = start + offset
                    self.failed += record.get("error") is not None
            start += path.stat().st_size
        self._starts = np.cumsum([0, *(path.stat().st_size for path in self._files)])

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Shape [rows]: which rows have a record."""
        done: npt.NDArray[np.bool_] = self._at != _NOWHERE
        return done

    def records(self) -> Iterator[Record]:
        """The records of all rows in the order of the input; every row must have one."""
        opened: list[IO[bytes]] = []
        try:
            opened.extend(path.open("rb") for path in self._files)
            for at in self._at:
                number = int(np.searchsorted(self._starts, at, side="right")) - 1
                opened[number].seek(int(at - self._starts[number]))
                yield json.loads(opened[number].readline())
        finally:
            for file in opened:
                file.close()


def files(folder: Path) -> list[Path]:
    """Files of all writers, the oldest first."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            record = _record(line)
            if record is not None:
                yield offset, record
            offset += len(line)


def _record(line: bytes) -> Record | None:
    """The record, or ``None`` for what a crash left of one."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and type(found.get("row")) is int else None


def sync(folder: Path) -> None:
    """Make the folder's list of files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
