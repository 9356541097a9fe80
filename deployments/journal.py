"""The journal of feedback: an append-only file of JSON lines, and where in it what is.

Lines of kind ``outcome`` and ``preference`` are feedback; they have numbers and are on disk before anybody is told so.
Lines of kind ``route`` say who has answered what; feedback that names an answer is completed from them. One process
alone may write. A last line that a crash has torn was never acknowledged and is cut off. Knows nothing of Ray.
"""

from __future__ import annotations

import fcntl
import json
import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.given import Kept, OtherFeedback
from ensemble.errors import BadRequest, ConfigurationError

Record = dict[str, Any]
"""JSON values."""

FEEDBACK = ("outcome", "preference")
ROUTES = 100_000
"""Answers that feedback can name, the latest."""
KEYS = 1_000_000
"""Pieces of feedback that are known again when they are sent twice, the latest."""
_PAGE = 1000
_SAID = ("member", "quality", "winner", "loser", "tie")
"""What has to be equal in feedback that is sent twice."""


class Journal:
    """One file, open for writing."""

    def __init__(self, path: Path, *, routes: int = ROUTES, keys: int = KEYS) -> None:
        """
        Args:
            routes: answers that feedback can name, the latest.
            keys: pieces of feedback that are known again, the latest.

        Raises:
            ConfigurationError: the file cannot be written.
            BlockingIOError: another process writes it.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigurationError(f"the journal {path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._file)
            raise
        self._most = {"routes": routes, "keys": keys}
        self._sequences, self._offsets = array("q"), array("q")
        self._routes: OrderedDict[str, int] = OrderedDict()
        self._keys: OrderedDict[str, int] = OrderedDict()
        self._size = 0
        for offset, record, end in _lines(self._file):
            if record is not None:
                self._index(offset, record)
            self._size = end
        os.ftruncate(self._file, self._size)
        _sync(path.parent)

    @property
    def last(self) -> int:
        """Number of the last piece of feedback; 0: there is none."""
        return self._sequences[-1] if self._sequences else 0

    def close(self) -> None:
        os.close(self._file)

    def note(self, routes: Sequence[Record]) -> None:
        """Write who has answered; not synced to the disk, as nobody is told so.

        Raises:
            OSError: they are not written.
        """
        self._write(routes, sync=False)

    def append(self, feedback: Sequence[Record]) -> list[Kept | BadRequest]:
        """Write feedback; each is on the disk when this returns, or is refused by the error in its place.

        Raises:
            OSError: none of them is.
        """
        found: list[Kept | BadRequest] = []
        fresh: list[Record] = []
        by_key: dict[str, Record] = {}
        for record in feedback:
            key = _feedback_key(record)
            before = None if key is None else by_key.get(key) or self._before(key)
            if before is None:
                fresh.append({**record, "sequence": self.last + 1 + len(fresh)})
                found.append(Kept(fresh[-1]["sequence"]))
                if key is not None:
                    by_key[key] = fresh[-1]
            else:
                found.append(_again(before, record))
        if fresh:
            self._write(fresh, sync=True)
        return found

    def route(self, ensemble: str, id: str, choice: int) -> Record | None:
        """Who has answered; ``None``: no such answer is known (any more)."""
        offset = self._routes.get(_route_key(ensemble, id, choice))
        return None if offset is None else self._at(offset)

    def since(self, after: int, ensemble: str, page: int = _PAGE) -> tuple[list[Record], int]:
        """Feedback to an ensemble after a number, and the number up to which this is all; a page at a time."""
        start = bisect_right(self._sequences, after)
        end = min(start + page, len(self._sequences))
        records = [self._at(offset) for offset in self._offsets[start:end]]
        through = self._sequences[end - 1] if end > start else max(after, self.last)
        return [record for record in records if record["ensemble"] == ensemble], through

    def _before(self, key: str) -> Record | None:
        """Feedback that was written under this key."""
        return self._at(self._keys[key]) if key in self._keys else None

    def _write(self, records: Sequence[Record], *, sync: bool) -> None:
        lines = [json.dumps(record, allow_nan=False).encode() + b"\n" for record in records]
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._file, data) :]
            if sync:
                os.fsync(self._file)
        except OSError:
            # What is there of it would be read as told.
            os.ftruncate(self._file, self._size)
            raise
        for record, line in zip(records, lines, strict=True):
            self._index(self._size, record)
            self._size += len(line)

    def _index(self, offset: int, record: Mapping[str, Any]) -> None:
        if record["kind"] in FEEDBACK:
            # In this order, as another thread may read: what has a number has a place.
            self._offsets.append(offset)
            self._sequences.append(record["sequence"])
            if (key := _feedback_key(record)) is not None:
                _remember(self._keys, key, offset, self._most["keys"])
        elif record["kind"] == "route":
            key = _route_key(record["ensemble"], record["id"], record["choice"])
            _remember(self._routes, key, offset, self._most["routes"])

    def _at(self, offset: int) -> Record:
        line = b""
        while not line.endswith(b"\n"):
            piece = os.pread(self._file, 4096, offset + len(line))
            found = piece.find(b"\n")
            line += piece if found < 0 else piece[: found + 1]
        record: Record = json.loads(line)
        return record


def _again(before: Record, record: Record) -> Kept | BadRequest:
    """What feedback that was sent before comes to."""
    if any(before.get(name) != record.get(name) for name in _SAID):
        return OtherFeedback("this answer was judged otherwise before, under the same key", param="key")
    return Kept(before["sequence"], duplicate=True)


def records(path: Path) -> Iterator[Record]:
    """All records of a journal, in order; another process may be writing it."""
    with path.open("rb") as file:
        for _, record, _ in _lines(file.fileno()):
            if record is not None:
                yield record


def _lines(file: int) -> Iterator[tuple[int, Record | None, int]]:
    """Whole lines with where they begin and end; of one that cannot be read there is no record."""
    with os.fdopen(os.dup(file), "rb") as reader:
        reader.seek(0)
        offset = 0
        for line in reader:
            if not line.endswith(b"\n"):
                return
            yield offset, _record(line), offset + len(line)
            offset += len(line)


def _record(line: bytes) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "kind" in found else None


def _route_key(ensemble: str, id: str, choice: int) -> str:
    return f"{ensemble} {choice} {id}"


def _feedback_key(record: Mapping[str, Any]) -> str | None:
    """By which feedback is known again; ``None``: it counts as often as it is sent."""
    id, key = record.get("id"), record.get("key")
    if id is None and key is None:
        return None
    about = key if key is not None else json.dumps([record.get(name) for name in ("member", "winner", "loser")])
    return json.dumps([record["ensemble"], id, record.get("choice", 0) if id is not None else 0, key is None, about])


def _remember(known: OrderedDict[str, int], key: str, offset: int, most: int) -> None:
    known[key] = offset
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)


def _sync(folder: Path) -> None:
    """Make the folder's list of files durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
