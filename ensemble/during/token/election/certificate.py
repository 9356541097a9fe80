"""Certificates: when do the members' top-k lists decide a weighted average over the whole vocabulary?

A class is a set of ids that stand for the same bytes. Its mass is Σ wᵢ·pᵢ over its ids at all members. Of each member
only some ids are known: those it listed and those that were looked up. An id that is not known has at most the mass of
the last one listed, and all of them together have at most the tail. Pure functions over numpy arrays; nothing here
knows how members are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ensemble.member import Distribution, Floats
from ensemble.vocabulary import NO_CLASS, STOP, Ids, Union

# Members send float32: a log-probability of -16 is off by up to 1e-6, and so is the mass made from it. Bounds are
# widened by more than that; a wrong certificate is worse than a look-up too many.
_RELATIVE = 1e-5
_ABSOLUTE = 4e-6

_ALWAYS = np.array([NO_CLASS, STOP], np.int32)
"""Put into every tally, so that control ids are in column 0 and the stop class, listed or not, is in column 1."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one member has told of its next-token distribution."""

    ids: Ids
    """Shape [n]: those listed, likeliest first, then those looked up; each once."""
    masses: Floats
    """Shape [n], float64: their probabilities."""
    size: int
    """Width of the whole distribution."""
    floor: float
    """No other id has more than this."""
    tail: float
    """All other ids together have no more than this."""

    @classmethod
    def of(cls, distribution: Distribution) -> Evidence:
        """What a list says."""
        masses = np.exp(distribution.logprobs, dtype=np.float64)
        if distribution.complete:
            return cls(distribution.ids, masses, distribution.size, 0.0, 0.0)
        tail = max(0.0, 1.0 - float(masses.sum())) + _ABSOLUTE
        return cls(distribution.ids, masses, distribution.size, float(masses[-1]) * (1 + _RELATIVE), tail)

    def joined(self, ids: Sequence[int], logprobs: Floats) -> Evidence:
        """With the log-probabilities of ids that were not known before."""
        found = np.exp(logprobs, dtype=np.float64)
        known = np.concatenate([self.ids, np.array(ids, np.int32)])
        masses = np.concatenate([self.masses, found])
        if len(known) == self.size:
            return Evidence(known, masses, self.size, 0.0, 0.0)
        tail = max(0.0, self.tail - float(found.sum())) + _ABSOLUTE
        return Evidence(known, masses, self.size, self.floor, tail)


@dataclass(frozen=True, slots=True)
class Tally:
    """What is known of the classes that members named. M members, C classes."""

    classes: Ids
    """Shape [C], ascending; the stop class is always the first."""
    masses: Floats
    """Shape [M, C]: known probability of each class at each member."""
    known: Floats
    """Shape [C]: weighted sum of the masses."""
    unseen: npt.NDArray[np.int64]
    """Shape [M, C]: ids of each class that the member has not told of."""
    missing: Floats
    """Shape [C]: what those ids may add to ``known`` at most."""
    rest: float
    """Mass of any class that is not in ``classes``, at most."""

    @property
    def ceiling(self) -> float:
        """No class whatever has more than this."""
        return max(float((self.known + self.missing).max()), self.rest)


@dataclass(frozen=True, slots=True)
class Certain:
    """The class in this column wins under the whole distributions; ties go to the class that comes first."""

    column: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """The ids of these columns that are not known yet may change the outcome."""

    columns: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Widen:
    """A class that nobody listed may win: longer lists are needed."""


Verdict = Certain | LookUp | Widen


def tally(union: Union, evidence: Sequence[Evidence], weights: Sequence[float]) -> Tally:
    """Add up what members have told.

    Args:
        evidence: of each member, in the order of the union's vocabularies.
        weights: of each member; they sum to 1.
    """
    members = len(evidence)
    named = [union.classes[i][e.ids] for i, e in enumerate(evidence)]
    classes, columns = np.unique(np.concatenate([_ALWAYS, *named]), return_inverse=True)
    width = len(classes)
    cells = columns[2:] + np.repeat(np.arange(members) * width, [len(e.ids) for e in evidence])
    told = np.concatenate([e.masses for e in evidence])
    masses: Floats = np.bincount(cells, told, members * width).reshape(members, width)[:, 1:].astype(np.float64)
    seen = np.bincount(cells, minlength=members * width).reshape(members, width)[:, 1:]
    classes = classes[1:]
    unseen = np.stack([counts[classes] for counts in _counts(union)]) - seen
    bounds = [np.minimum(e.tail, n * e.floor) for e, n in zip(evidence, unseen, strict=True)]
    rest = (w * min(e.tail, n * e.floor) for w, e, n in zip(weights, evidence, union.largest, strict=True))
    return Tally(classes, masses, weighted(weights, masses), unseen, weighted(weights, bounds), sum(rest))


def clear_winner(
    union: Union, evidence: Sequence[Evidence], weights: Sequence[float]
) -> tuple[int, list[float]] | None:
    """The class that leads by more than what is not known could give to any class, and its mass at each member.

    ``None`` where that takes a tally. Most steps are clear, and plain Python is faster than numpy over so few tokens.

    >>> from ensemble.vocabulary import Vocabulary
    >>> union = Union([Vocabulary((b"x", b"y", b"z"))] * 2)
    >>> told = [Evidence(np.array([0], np.int32), np.array([m]), 3, 1 - m, 1 - m) for m in (0.9, 0.8)]
    >>> union.bytes_of(clear_winner(union, told, [0.5, 0.5])[0])
    b'x'
    """
    known: dict[int, float] = {}
    rest = 0.0
    told: list[tuple[list[int], list[float]]] = []
    for member, (weight, seen) in enumerate(zip(weights, evidence, strict=True)):
        classes, masses = union.classes[member][seen.ids].tolist(), seen.masses.tolist()
        for class_, mass in zip(classes, masses, strict=True):
            known[class_] = known.get(class_, 0.0) + weight * mass
        unseen = max(union.largest[member], union.count(member, STOP))
        rest += weight * min(seen.tail, unseen * seen.floor)
        told.append((classes, masses))
    known.pop(NO_CLASS, None)
    if not known:
        return None
    winner = max(known, key=known.__getitem__)
    lead = known.pop(winner) - max(known.values(), default=0.0)
    if lead <= rest or rest == 0:
        return None
    return winner, [sum(m for c, m in zip(*own, strict=True) if c == winner) for own in told]


def whole(union: Union, evidence: Sequence[Evidence], weights: Sequence[float]) -> Tally:
    """The tally of complete distributions: every class of the union, in order."""
    rows: list[Floats] = [
        np.bincount(union.classes[i][e.ids] - NO_CLASS, e.masses, union.size + 1)[1:].astype(np.float64)
        for i, e in enumerate(evidence)
    ]
    masses = np.stack(rows)
    nothing = np.zeros(union.size)
    unseen = np.zeros(masses.shape, np.int64)
    return Tally(np.arange(union.size, dtype=np.int32), masses, weighted(weights, rows), unseen, nothing, 0.0)


def verdict(tally: Tally) -> Verdict:
    """Who wins, or what is still needed to say so.

    >>> from ensemble.vocabulary import Vocabulary
    >>> union = Union([Vocabulary((b"x", b"y", b"z"))] * 2)
    >>> lists = [np.array([0, 1], np.int32), np.array([0, 2], np.int32)]
    >>> told = [Evidence(i, np.array(m), 3, m[1], 1 - sum(m)) for i, m in zip(lists, ([0.6, 0.2], [0.4, 0.3]))]
    >>> verdict(tally(union, told, [0.5, 0.5]))
    Certain(column=1)
    """
    winner = int(np.argmax(tally.known))
    best = tally.known[winner]
    upper = tally.known + tally.missing
    open_ = (tally.missing > 0) & (upper >= best)
    rivals = np.count_nonzero(open_) - open_[winner]
    if not rivals and (tally.rest < best or tally.rest == 0):
        return Certain(winner)
    if tally.rest >= upper.max():
        return Widen()
    return LookUp(np.flatnonzero(open_))


def unknown_ids(
    union: Union, evidence: Sequence[Evidence], tally: Tally, columns: Iterable[int]
) -> Mapping[int, tuple[int, ...]]:
    """The ids of these columns' classes that members have not told of, by member; members with none are left out."""
    wanted: dict[int, tuple[int, ...]] = {}
    columns = list(columns)
    for member, told in enumerate(evidence):
        classes = [int(tally.classes[c]) for c in columns if tally.unseen[member, c]]
        if classes:
            known = set(told.ids.tolist())
            wanted[member] = tuple(i for c in classes for i in union.ids(member, c) if i not in known)
    return wanted


def weighted(weights: Sequence[float], rows: Iterable[Floats]) -> Floats:
    """Weighted sum of rows, added up in order: the same bits for a class whatever stands beside it."""
    sum_: Floats | None = None
    for weight, row in zip(weights, rows, strict=True):
        sum_ = weight * row if sum_ is None else sum_ + weight * row
    assert sum_ is not None, "a weighted sum needs at least one member"
    return sum_


@lru_cache(maxsize=64)
def _counts(union: Union) -> tuple[Ids, ...]:
    """Per member, shape [classes]: how many ids it has in each class."""
    return tuple(
        np.bincount(classes[classes != NO_CLASS], minlength=union.size).astype(np.int32) for classes in union.classes
    )
