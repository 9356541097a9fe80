"""Elo: ratings from battles in the order in which they were fought, over all queries and around the one at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ensemble.before.heads.cells import Cells
from ensemble.before.heads.head import Head, Outcome, Preference
from ensemble.before.heads.nearest import Search, appended_to, indexed, nearest
from ensemble.before.heads.store import appended
from ensemble.before.solvers.strengths import START, elo_step, win_share, won
from ensemble.before.targets.battles import Battles, expected_score
from ensemble.outcomes.dense import Floats, Ints

_BLOCK = 1024
"""Queries whose battles are replayed at once: bounds memory, not results."""
_FEW = 16
"""Up to so many queries a loop over plain numbers is faster than steps of arrays."""
_SCALE = np.log(10) / 400
"""Log-odds of a rating point."""
_FAR, _HALVINGS = 2000.0, 50
"""Rating points beyond those of all others within which a newcomer is placed, and steps of the search."""


@dataclass
class Elo(Head, kind="elo"):
    """share · global rating + (1 - share) · rating after the battles of the N nearest stored queries (arXiv
    2409.15518).

    Scores are mean win probabilities against the other members at these ratings, in the order of the ratings.
    """

    x: Floats
    """[capacity, d], unit rows of the stored queries, of which ``count`` hold one."""
    begins: Ints
    """[capacity], where the battles of each stored query begin."""
    first: Ints
    """[battles' capacity], a member, of which ``fought`` hold one; the battles in the order in which they were
    fought."""
    second: Ints
    score: Floats
    """What the first got."""
    ratings: Floats
    """[M], after the last battle."""
    averages: Floats
    """[M], mean of the ratings after each battle: where the order of battles counts less."""
    expected: Floats
    """[M], mean quality in what the head was fitted to: what outcomes of a single member are held against."""
    count: int
    fought: int
    share: float = 0.5
    """P, weight of the global rating."""
    neighbours: int = 20
    """N."""
    step: float = 32.0
    """K, points that a battle moves at most."""
    averaged: bool = True
    """Whether the global rating is the average, not the last one."""
    search: Search = "auto"
    """Where the nearest stored queries are sought: exact, among all of them; cells, in the nearest cells; auto, by how
    many there are."""
    compared: int | None = None
    """Stored queries of the nearest cells that one is compared with at least; ``None``: four for each neighbour, at
    least 3,072."""
    cells: Cells | None = None
    """Of the stored queries, where they are sought in cells."""

    learns: ClassVar[bool] = True
    prefers: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.cells = indexed(self.search, self.x[: self.count], self.cells)

    @classmethod
    def fit(cls, x: Floats, found: Battles, expected: Floats, **options: Any) -> Elo:
        """
        Args:
            x: [n, d], unit rows of all queries in order; those without a battle are not stored.
            found: of queries that are rows of ``x``, in ascending order.
            expected: [M], mean quality.
            options: the fields that are not arrays, by name.
        """
        rows, begins = np.unique(found.rows, return_index=True)
        members = (found.first.astype(np.int32), found.second.astype(np.int32))
        start = np.full(len(expected), START)
        arrays = (x[rows].astype(np.float32), begins, *members, found.score.astype(float), start, start)
        head = cls(*arrays, np.asarray(expected, float), len(rows), 0, **options)
        head._fight(len(found))
        return head

    @property
    def overall(self) -> Floats:
        """[M], the global ratings."""
        return self.averages if self.averaged else self.ratings

    def scores(self, x: Floats) -> Floats:
        return win_share(_SCALE * (self.rated(x) - START))

    def rated(self, x: Floats) -> Floats:
        """[n, M], ratings at the queries."""
        overall = np.tile(self.overall, (len(x), 1))
        local = self._local(x) if self.neighbours and self.count else overall
        return self.share * overall + (1 - self.share) * local

    def _local(self, x: Floats) -> Floats:
        blocks = [self._replayed(self._near(x[start : start + _BLOCK])) for start in range(0, len(x), _BLOCK)]
        return np.concatenate([np.zeros((0, len(self.ratings))), *blocks])

    def _near(self, x: Floats) -> Ints:
        """[n, N], places of the nearest stored queries, oldest first."""
        places, _ = nearest(x, self.x[: self.count], self.neighbours, self.cells, self.compared)
        return np.sort(places, axis=1)

    def _replayed(self, near: Ints) -> Floats:
        """[n, M], the global ratings moved on by the battles of some stored queries [n, N], oldest first."""
        battle, fought = self._battles(near)
        first, second, score = self._at(battle)
        if len(near) > _FEW:
            return _together(self.overall, first, second, score, fought, self.step)
        ends = np.cumsum(fought).tolist()
        return np.array(
            [
                _alone(self.overall, first[end - own : end], second[end - own : end], score[end - own : end], self.step)
                for end, own in zip(ends, fought.tolist(), strict=True)
            ]
        )

    def _battles(self, near: Ints) -> tuple[Ints, Ints]:
        """The battles of some stored queries [n, N], one after the other; and how many each row of them has [n]."""
        begins = self.begins[near]
        ends = np.where(near + 1 < self.count, self.begins[np.minimum(near + 1, self.count - 1)], self.fought)
        lengths = (ends - begins).ravel()
        offsets = begins.ravel() - (np.cumsum(lengths) - lengths)
        return np.repeat(offsets, lengths) + np.arange(lengths.sum()), (ends - begins).sum(axis=1)

    def _at(self, battle: Ints) -> tuple[Ints, Ints, Floats]:
        return self.first[battle], self.second[battle], self.score[battle]

    def _fight(self, end: int) -> None:
        """Take the stored battles up to a place into the global ratings, those that are not in them yet."""
        ratings: list[float] = self.ratings.tolist()
        totals = self.averages * self.fought + self.ratings * (end - self.fought)
        first, second, score = self._at(np.arange(self.fought, end))
        for left, a, b, got in zip(
            range(len(first), 0, -1), first.tolist(), second.tolist(), score.tolist(), strict=True
        ):
            before = ratings[a]
            elo_step(ratings, a, b, got, self.step)
            # What a battle moves counts in the rating after it and in all later ones.
            totals[a] += (ratings[a] - before) * left
            totals[b] -= (ratings[a] - before) * left
        self.ratings, self.fought = np.array(ratings), end
        self.averages = totals / end if end else self.ratings

    def prefer(self, preference: Preference) -> None:
        self._append(preference.x, preference.winner, preference.loser, 0.5 if preference.tie else 1.0)

    def learn(self, outcome: Outcome) -> None:
        """A battle against what is expected of the best of the others."""
        if len(self.expected) < 2:
            return
        others = np.where(np.arange(len(self.expected)) == outcome.member, -np.inf, self.expected)
        other = int(np.argmax(others))
        score = expected_score(outcome.quality, float(self.expected[other]))
        self._append(outcome.x, outcome.member, other, score)

    def widen(self, x: Floats, quality: Floats) -> Elo:
        """The newcomer starts from the rating at which it would do against the others as its outcomes say, and one tie
        with a mean member. Each outcome is stored as a battle with everybody, which moves local ratings alone."""
        known, fought, rows = self.overall, self.fought, np.asarray(x, np.float32).reshape(len(x), self.x.shape[1])
        got = (1 + np.asarray(quality)[:, None] - self.expected) / 2
        start = _rating(known, (0.5 + float(got.mean(axis=1).sum())) / (1 + len(quality)))
        mean = float(quality.mean()) if len(quality) else float(self.expected.mean())
        store = np.concatenate([self.x[: self.count], rows])
        return replace(
            self,
            x=store,
            begins=np.append(self.begins[: self.count], fought + len(known) * np.arange(len(x))),
            first=np.append(self.first[:fought], np.full(got.size, len(known), self.first.dtype)),
            second=np.append(self.second[:fought], np.tile(np.arange(len(known)), len(x)).astype(self.second.dtype)),
            score=np.append(self.score[:fought], got),
            ratings=np.append(self.ratings, start),
            averages=np.append(self.averages, start),
            expected=np.append(self.expected, mean),
            count=len(store),
            fought=fought + got.size,
            cells=self.cells and self.cells.extended(store),
        )

    def _append(self, x: Floats, first: int, second: int, score: float) -> None:
        self.x = appended(self.x, self.count, x)
        self.begins = appended(self.begins, self.count, self.fought)
        self.count += 1
        for name, value in (("first", first), ("second", second), ("score", score)):
            setattr(self, name, appended(getattr(self, name), self.fought, value))
        self.cells = appended_to(self.search, self.x[: self.count], self.cells)
        self._fight(self.fought + 1)


def _rating(known: Floats, share: float) -> float:
    """The rating at which the mean probability of beating members of these ratings is a share, by bisection."""
    low, high = float(known.min()) - _FAR, float(known.max()) + _FAR
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if won(_SCALE * (middle - known)).mean() < share else (low, middle)
    return (low + high) / 2


def _alone(overall: Floats, first: Ints, second: Ints, score: Floats, step: float) -> list[float]:
    """[M], ratings after some battles."""
    ratings: list[float] = overall.tolist()
    for a, b, got in zip(first.tolist(), second.tolist(), score.tolist(), strict=True):
        elo_step(ratings, a, b, got, step)
    return ratings


def _together(overall: Floats, first: Ints, second: Ints, score: Floats, fought: Ints, step: float) -> Floats:
    """[n, M], ratings after the battles of each of n queries, which lie one after the other, ``fought`` [n] of each."""
    count, turns = len(fought), np.arange(fought.max(initial=0))
    # Who has no battle left ties with itself, which moves nothing.
    one, other, got = (np.full((count, len(turns)), idle) for idle in (0, 0, 0.5))
    has = turns < fought[:, None]
    one[has], other[has], got[has] = first, second, score
    ratings = np.repeat(overall, count)
    for a, b, s in zip(one.T * count + np.arange(count), other.T * count + np.arange(count), got.T, strict=True):
        rating, against = ratings[a], ratings[b]
        move = step * (s - 1 / (1 + np.exp(_SCALE * (against - rating))))
        ratings[a] = rating + move
        ratings[b] = against - move
    return ratings.reshape(-1, count).T
