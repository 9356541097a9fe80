"""Partial answers on which members agree: each member's own tokens, and one text that all of these begin.

Values only; nothing here knows how moves are found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

STOP_ID = -1
"""Stands for all stop ids of a member together, in moves; no member has such an id."""


@dataclass(frozen=True, slots=True)
class Track:
    """What one member has written."""

    ids: tuple[int, ...] = ()
    text: bytes = b""
    total: float = 0.0
    """Log-probability of the ids."""
    ended: bool = False
    """It has stopped; the stop counts as a token."""

    @property
    def length(self) -> int:
        """Tokens, the stop included."""
        return len(self.ids) + self.ended

    @property
    def mean(self) -> float:
        """Log-probability for each token."""
        return self.total / self.length if self.length else 0.0

    def after(self, logprob: float) -> float:
        """``mean`` with one more token."""
        return (self.total + logprob) / (self.length + 1)

    def with_token(self, id: int, text: bytes, logprob: float) -> Track:
        """The track after one more token, or after the stop."""
        if id == STOP_ID:
            return replace(self, total=self.total + logprob, ended=True)
        return Track((*self.ids, id), self.text + text, self.total + logprob)


@dataclass(frozen=True, slots=True)
class Item:
    """One partial answer, by the tracks of those who write it; every track's text begins the longest.

    >>> item = Item((Track((4,), b"tok", -0.1), Track((7,), b"tokeniz", -0.3)))
    >>> item.text, item.moving, item.postfix(0), item.ended
    (b'tokeniz', [0], b'eniz', False)
    """

    tracks: tuple[Track, ...]

    @property
    def text(self) -> bytes:
        return max((track.text for track in self.tracks), key=len)

    @property
    def level(self) -> bool:
        """All have written the whole text."""
        return len({len(track.text) for track in self.tracks}) == 1

    @property
    def moving(self) -> list[int]:
        """Seats that write next: those who are behind, or all; the others are stalled."""
        longest = len(self.text)
        behind = [seat for seat, track in enumerate(self.tracks) if len(track.text) < longest]
        return behind or list(range(len(self.tracks)))

    @property
    def ended(self) -> bool:
        return self.tracks[0].ended

    def postfix(self, seat: int) -> bytes:
        """What a seat has still to spell."""
        return self.text[len(self.tracks[seat].text) :]

    def score(self, weights: Sequence[float]) -> float:
        """Weighted sum of the members' log-probabilities for each token; the same in any order of members."""
        return math.fsum(w * track.mean for w, track in zip(weights, self.tracks, strict=True))

    def moved(self, steps: Mapping[int, tuple[int, bytes, float]]) -> Item:
        """The item after these seats have written an id, its bytes and log-probability each."""
        return Item(tuple(t.with_token(*steps[s]) if s in steps else t for s, t in enumerate(self.tracks)))
