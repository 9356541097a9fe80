"""Elo: ratings from battles in the order in which they were fought, over all queries and around the one at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome, Preference
from ensemble.before.heads.neighbours import nearest_rows
from ensemble.before.heads.store import appended
from ensemble.before.heads.strengths import START, elo_step, win_share
from ensemble.before.targets.battles import Battles, expected_score
from ensemble.outcomes.dense import Floats, Ints

_BLOCK = 512
"""Queries compared with the whole store at once: bounds memory, not results."""
_FEW = 16
"""Up to so many queries a loop over plain numbers is faster than steps of arrays."""


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

    learns: ClassVar[bool] = True
    prefers: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    @classmethod
    def fit(cls, x: Floats, found: Battles, expected: Floats, **options: float) -> Elo:
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
        head = cls(*arrays, np.asarray(expected, float), len(rows), 0, **options)  # type: ignore[arg-type]
        head._fight(len(found))
        return head

    @property
    def overall(self) -> Floats:
        """[M], the global ratings."""
        return self.averages if self.averaged else self.ratings

    def scores(self, x: Floats) -> Floats:
        return win_share(np.log(10) / 400 * (self.rated(x) - START))

    def rated(self, x: Floats) -> Floats:
        """[n, M], ratings at the queries."""
        overall = np.tile(self.overall, (len(x), 1))
        local = self._local(x) if self.neighbours and self.count else overall
        return self.share * overall + (1 - self.share) * local

    def _local(self, x: Floats) -> Floats:
        near = [self._near(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return self._replayed(np.concatenate(near)) if near else np.zeros((0, len(self.ratings)))

    def _near(self, x: Floats) -> Ints:
        """[n, N], places of the nearest stored queries, oldest first."""
        near, _ = nearest_rows(x.astype(np.float32) @ self.x[: self.count].T, self.neighbours)
        return np.sort(near, axis=1)

    def _replayed(self, near: Ints) -> Floats:
        """[n, M], the global ratings moved on by the battles of some stored queries [n, N], oldest first."""
        if len(near) <= _FEW:
            return np.array([self._replay(row) for row in near])
        lengths = np.diff(np.append(self.begins[: self.count], self.fought))[near]
        ratings = np.tile(self.overall, (len(near), 1))
        rows = np.arange(len(near))
        for place in range(near.shape[1]):
            for battle in range(int(lengths[:, place].max(initial=0))):
                has = rows[lengths[:, place] > battle]
                _steps(ratings, has, self._at(self.begins[near[has, place]] + battle), self.step)
        return ratings

    def _at(self, battle: Ints) -> tuple[Ints, Ints, Floats]:
        return self.first[battle], self.second[battle], self.score[battle]

    def _replay(self, near: Ints) -> list[float]:
        ratings: list[float] = self.overall.tolist()
        ends = np.append(self.begins[: self.count], self.fought)
        for query in near:
            first, second, score = self._at(np.arange(ends[query], ends[query + 1]))
            for battle in zip(first.tolist(), second.tolist(), score.tolist(), strict=True):
                elo_step(ratings, *battle, self.step)
        return ratings

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

    def _append(self, x: Floats, first: int, second: int, score: float) -> None:
        self.x = appended(self.x, self.count, x)
        self.begins = appended(self.begins, self.count, self.fought)
        self.count += 1
        for name, value in (("first", first), ("second", second), ("score", score)):
            setattr(self, name, appended(getattr(self, name), self.fought, value))
        self._fight(self.fought + 1)


def _steps(ratings: Floats, rows: Ints, battle: tuple[Ints, Ints, Floats], step: float) -> None:
    """``elo_step`` in each of some rows, in place."""
    first, second, score = battle
    gap = ratings[rows, second] - ratings[rows, first]
    move = step * (score - 1 / (1 + 10 ** (gap / 400)))
    ratings[rows, first] += move
    ratings[rows, second] -= move
