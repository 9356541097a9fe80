"""JSON lines in files of bounded size: append-only, read by place, begun anew where a file is full.

The first file has the name that was given, later ones a number before the suffix: ``said.jsonl``, then
``said.000002.jsonl``. One process alone may write. What a crash has left of a last line is cut off. Knows nothing of
what lines mean.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""JSON values."""
FULL = 64 * 2**20
"""Bytes from which on a file is not written any more."""
_PIECE = 4096
"""Bytes that are read at once of one line."""


@dataclass(slots=True)
class _Segment:
    path: Path
    file: int
    """Its descriptor."""
    begins: int
    """Place of its first byte."""
    size: int = 0
    """Bytes of whole lines."""


class Segments:
    """Open for writing; places are bytes over all files, and hold for this process alone."""

    def __init__(self, path: Path, full: int = FULL) -> None:
        """
        Args:
            path: of the first file; those that are there are opened, the first one is made.
            full: bytes from which on a further file is begun.

        Raises:
            OSError: a file cannot be opened.
        """
        self._path, self._full = path, full
        self._segments: list[_Segment] = []
        # Who reads must not find a file closed that is dropped meanwhile.
        self._lock = threading.Lock()
        try:
            for found in [path, *_later(path).values()]:
                self._segments.append(_Segment(found, opened(found), 0))
        except OSError:
            self.close()
            raise

    def read(self) -> Iterator[tuple[int, Record]]:
        """All records with their places, in order; to be read through once, before anything is written."""
        begins = 0
        for segment in self._segments:
            segment.begins = begins
            for offset, record, end in lines(segment.file, segment.path):
                segment.size = end
                if record is not None:
                    yield begins + offset, record
            begins += segment.size
        os.ftruncate(self._segments[-1].file, self._segments[-1].size)
        sync(self._path.parent)

    def append(self, records: Sequence[Record], *, durable: bool) -> list[int]:
        """Their places; numbers that JSON does not have become null.

        Args:
            durable: they are on the disk when this returns.

        Raises:
            OSError: none of them is there.
        """
        written = [to_json(record, inf_nan_mode="null") + b"\n" for record in records]
        segment = self._current()
        # After a failure that could not be undone at once: a line after what is left of one would be lost with it.
        if os.fstat(segment.file).st_size != segment.size:
            os.ftruncate(segment.file, segment.size)
        try:
            _write(segment.file, b"".join(written))
            if durable:
                os.fsync(segment.file)
        except OSError:
            os.ftruncate(segment.file, segment.size)
            raise
        places = []
        for line in written:
            places.append(segment.begins + segment.size)
            segment.size += len(line)
        return places

    def at(self, place: int) -> Record:
        """The record that begins at a place.

        Raises:
            OSError: the file has lost it.
        """
        line = b""
        with self._lock:
            if place < self._segments[0].begins:
                raise OSError(f"the file of {self._path} that held the record is gone")
            segment = self._segments[bisect_right(self._segments, place, key=lambda one: one.begins) - 1]
            while not line.endswith(b"\n"):
                piece = os.pread(segment.file, _PIECE, place - segment.begins + len(line))
                if not piece:
                    raise OSError(f"{segment.path} has become shorter")
                found = piece.find(b"\n")
                line += piece if found < 0 else piece[: found + 1]
        record: Record = json.loads(line)
        return record

    def drop(self, before: int) -> None:
        """Delete files in which everything is before a place; the one that is written stays."""
        with self._lock:
            while len(self._segments) > 1 and self._segments[1].begins <= before:
                gone = self._segments.pop(0)
                os.close(gone.file)
                # What stays is read again by the next process and dropped by it.
                with suppress(OSError):
                    gone.path.unlink()

    def close(self) -> None:
        with self._lock:
            for segment in self._segments:
                os.close(segment.file)
            self._segments.clear()

    def _current(self) -> _Segment:
        """The file that is written; a further one where that is full."""
        last = self._segments[-1]
        if last.size < self._full:
            return last
        path = _numbered(self._path, 1 + max(_later(self._path), default=1))
        segment = _Segment(path, opened(path), last.begins + last.size)
        sync(path.parent)
        with self._lock:
            self._segments.append(segment)
        return segment


def files(path: Path) -> list[Path]:
    """All files of these segments, in order; where there is none, the first one's name."""
    later = list(_later(path).values())
    return [path, *later] if path.exists() or not later else later


def _later(path: Path) -> dict[int, Path]:
    """Those that are there beside the first, by number, in order."""
    name = re.compile(rf"{re.escape(path.stem)}\.(\d{{6,}}){re.escape(path.suffix)}")
    found = {int(match[1]): other for other in path.parent.iterdir() if (match := name.fullmatch(other.name))}
    return dict(sorted(found.items()))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number:06d}{path.suffix}")


def lines(file: int, path: Path) -> Iterator[tuple[int, Record | None, int]]:
    """Whole lines with where they begin and end; of one that cannot be read there is no record, and that is logged."""
    with os.fdopen(os.dup(file), "rb") as reader:
        reader.seek(0)
        offset = 0
        for line in reader:
            if not line.endswith(b"\n"):
                return
            if (record := _record(line)) is None:
                log.warning("the line at byte %d of %s is no record and is left out", offset, path)
            yield offset, record, offset + len(line)
            offset += len(line)


def _record(line: bytes) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def opened(path: Path) -> int:
    """A descriptor for reading, and for writing at the end."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def sync(folder: Path) -> None:
    """Make the folder's list of files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
