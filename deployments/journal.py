"""The journal of feedback: what was said of answers, for good, and who has given the latest answers.

Feedback, of kind ``outcome`` or ``preference``, is numbered and on the disk before anybody is told so; no line of it is
ever changed or deleted. Who has answered what, of kind ``route``, stands in files beside it, from which feedback that
names an answer is completed; those that hold none of the latest answers are deleted. One process alone may write.
Knows nothing of Ray.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments import segments
from deployments.given import Kept, OtherFeedback
from deployments.segments import Record, Segments
from ensemble.errors import BadRequest, ConfigurationError

log = logging.getLogger(__name__)

FEEDBACK = ("outcome", "preference")
ROUTES = 100_000
"""Answers that feedback can name, the latest."""
KEYS = 1_000_000
"""Pieces of feedback that are known again when they are sent twice, the latest."""
_PAGE, _PAGE_BYTES = 1000, 8 * 2**20
"""Records that are told at once at most, and about as many bytes of them."""
_SAID = ("member", "quality", "winner", "loser", "tie")
"""What has to be equal in feedback that is sent twice."""


class Journal:
    """Open for writing."""

    def __init__(self, path: Path, *, routes: int = ROUTES, keys: int = KEYS, full: int = segments.FULL) -> None:
        """
        Args:
            routes: answers that feedback can name, the latest.
            keys: pieces of feedback that are known again, the latest.
            full: bytes from which on a file is not written any more.

        Raises:
            ConfigurationError: the files cannot be written.
            BlockingIOError: another process writes them.
        """
        self._most = {"routes": routes, "keys": keys}
        self._sequences, self._places = array("q"), array("q")
        self._routes: OrderedDict[str, tuple[Segments, int]] = OrderedDict()
        self._keys: OrderedDict[str, int] = OrderedDict()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = segments.opened(path)
        except OSError as error:
            raise ConfigurationError(f"the journal {path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not before: whoever held it may have begun a further file.
            self._said, self._told = Segments(path, full), Segments(routes_path(path), full)
        except BaseException:
            os.close(self._lock)
            raise
        for kept in (self._said, self._told):
            for place, record in kept.read():
                self._index(kept, place, record)

    @property
    def last(self) -> int:
        """Number of the last piece of feedback; 0: there is none."""
        return self._sequences[-1] if self._sequences else 0

    def close(self) -> None:
        self._told.close()
        self._said.close()
        os.close(self._lock)

    def note(self, routes: Sequence[Record]) -> None:
        """Write who has answered; not synced to the disk, as nobody is told so.

        Raises:
            OSError: they are not written.
        """
        if not routes:
            return
        for place, record in zip(self._told.append(routes, durable=False), routes, strict=True):
            self._index(self._told, place, record)
        kept, oldest = next(iter(self._routes.values()), (None, 0))
        if kept is self._told:
            self._told.drop(before=oldest)

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
            for place, record in zip(self._said.append(fresh, durable=True), fresh, strict=True):
                self._index(self._said, place, record)
        return found

    def route(self, ensemble: str, id: str, choice: int) -> Record | None:
        """Who has answered; ``None``: no such answer is known (any more).

        Raises:
            OSError: the journal cannot be read.
        """
        key = _route_key(ensemble, id, choice)
        if (found := self._routes.get(key)) is None:
            return None
        kept, place = found
        try:
            return kept.at(place)
        except OSError:
            # It may have been forgotten, and its file deleted, by the thread that writes.
            if key in self._routes:
                raise
            return None

    def since(self, after: int, ensemble: str, page: int = _PAGE) -> tuple[list[Record], int]:
        """Feedback to an ensemble after a number, and the number up to which this is all; a page at a time.

        That number is below ``after`` where the journal is not the one that the number was of: it was begun anew.
        """
        start = bisect_right(self._sequences, after)
        if start == len(self._sequences):
            return [], self.last
        within = bisect_right(self._places, self._places[start] + _PAGE_BYTES)
        end = max(start + 1, min(start + page, within, len(self._sequences)))
        records = [self._said.at(place) for place in self._places[start:end]]
        return [record for record in records if record["ensemble"] == ensemble], self._sequences[end - 1]

    def _before(self, key: str) -> Record | None:
        """Feedback that was written under this key."""
        return self._said.at(self._keys[key]) if key in self._keys else None

    def _index(self, kept: Segments, place: int, record: Mapping[str, Any]) -> None:
        try:
            if record.get("kind") in FEEDBACK:
                self._index_feedback(place, record)
            elif record.get("kind") == "route":
                key = _route_key(record["ensemble"], record["id"], record["choice"])
                _remember(self._routes, key, (kept, place), self._most["routes"])
        except (KeyError, TypeError) as error:
            log.warning("a record of the journal lacks what it needs and is left out: %r", error)

    def _index_feedback(self, place: int, record: Mapping[str, Any]) -> None:
        sequence, key, _ = int(record["sequence"]), _feedback_key(record), record["question"]
        # In this order, as another thread may read: what has a number has a place.
        self._places.append(place)
        self._sequences.append(sequence)
        if key is not None:
            _remember(self._keys, key, place, self._most["keys"])


def routes_path(path: Path) -> Path:
    """Where it stands who has answered.

    >>> routes_path(Path("said.jsonl")).name
    'said.routes.jsonl'
    """
    return path.with_name(f"{path.stem}.routes{path.suffix}")


def records(path: Path) -> Iterator[Record]:
    """All feedback of a journal, in order; another process may be writing it."""
    for found in segments.files(path):
        with found.open("rb") as file:
            for _, record, _ in segments.lines(file.fileno(), found):
                if record is not None and record.get("kind") in FEEDBACK:
                    yield record


def _again(before: Record, record: Record) -> Kept | BadRequest:
    """What feedback that was sent before comes to."""
    if _judgement(before) != _judgement(record):
        return OtherFeedback("this answer was judged otherwise before, under the same key", param="key")
    return Kept(before["sequence"], duplicate=True)


def _judgement(record: Mapping[str, Any]) -> list[Any]:
    """What was said; of a tie it does not matter who is named first."""
    if record.get("tie"):
        return sorted([record["winner"], record["loser"]])
    return [record.get(name) for name in _SAID]


def _route_key(ensemble: str, id: str, choice: int) -> str:
    return f"{ensemble} {choice} {id}"


def _feedback_key(record: Mapping[str, Any]) -> str | None:
    """By which feedback is known again; ``None``: it counts as often as it is sent."""
    id, key = record.get("id"), record.get("key")
    if id is None and key is None:
        return None
    # A pair of members is the same whichever of them is called the better one.
    about = [record.get("member"), *sorted(str(record.get(name)) for name in ("winner", "loser"))]
    choice = record.get("choice", 0) if id is not None else 0
    return json.dumps([record["ensemble"], id, choice, key is None, about if key is None else key])


def _remember(known: OrderedDict[str, Any], key: str, value: Any, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
