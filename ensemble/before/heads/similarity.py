"""Similarity-weighted ranking: Bradley-Terry strengths from battles that count more the likelier the query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome, Preference
from ensemble.before.heads.store import appended
from ensemble.before.heads.strengths import bradley_terry, rated, tiers, win_share
from ensemble.before.targets.battles import Battles, expected_score, wins
from ensemble.outcomes.dense import Floats, Ints

_BLOCK = 256
"""Queries compared with the whole store at once: bounds memory, not results."""


@dataclass
class SimilarityRanking(Head, kind="similarity-ranking"):
    """A stored battle weighs 10 · 10^(s · similarity ÷ largest similarity); members of one tier are one competitor.

    The weighted battles between tiers are all that Bradley-Terry needs, so a query costs one pass over the store
    and a fit of T numbers. Scores are mean win probabilities against the other members; within a tier members are
    ranked by their mean quality, by less than anything that tiers differ in.
    """

    x: Floats
    """[capacity, d], unit rows of the stored queries, of which ``count`` hold one."""
    wins: Floats
    """[capacity, T · T], points that tier i took from tier j on each of them."""
    tier: Ints
    """[M], each member's, 0 the weakest."""
    expected: Floats
    """[M], mean quality in what the head was fitted to: what outcomes of a single member are held against."""
    count: int
    pseudo: float = 1.0
    """Ties of weight 1 added to each pair of tiers, so that strengths are finite."""
    sharpness: float = 1.0
    """s of the weights 10 · 10^(s · similarity ÷ largest similarity); 1 as published."""

    learns: ClassVar[bool] = True
    prefers: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    @classmethod
    def fit(
        cls, x: Floats, found: Battles, expected: Floats, groups: int = 10, sharpness: float = 1.0
    ) -> SimilarityRanking:
        """
        Args:
            x: [n, d], unit rows of all queries; those without a battle are not stored.
            found: of queries that are rows of ``x``.
            expected: [M], mean quality.
            groups: tiers at most.
            sharpness: see the field.
        """
        everyone = np.arange(len(expected))
        overall = wins(found, len(x), everyone).sum(axis=0)
        tier = tiers(bradley_terry(overall, cls.pseudo), groups)
        points = wins(found, len(x), tier)
        fought = points.any(axis=(1, 2))
        rows = points[fought].reshape(int(fought.sum()), -1)
        return cls(
            x[fought].astype(np.float32), rows, tier, np.asarray(expected, float), len(rows), sharpness=sharpness
        )

    @property
    def _count(self) -> int:
        return int(self.tier.max()) + 1

    def strengths(self, x: Floats) -> Floats:
        """[n, T], log-odds of the tiers at the queries."""
        blocks = [self._strengths(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self._count))

    def _strengths(self, x: Floats) -> Floats:
        weight = weights(x.astype(np.float32) @ self.x[: self.count].T, self.sharpness)
        points = weight @ self.wins[: self.count]
        return bradley_terry(points.reshape(len(x), self._count, self._count), self.pseudo)

    def rated(self, x: Floats) -> Floats:
        """[n, M], ratings of the members' tiers at the queries."""
        return rated(self.strengths(x))[:, self.tier]

    def scores(self, x: Floats) -> Floats:
        return np.asarray(win_share(self.strengths(x)[:, self.tier]) + 1e-9 * self.expected)

    def prefer(self, preference: Preference) -> None:
        self._append(preference.x, preference.winner, preference.loser, 0.5 if preference.tie else 1.0)

    def learn(self, outcome: Outcome) -> None:
        """A battle against what is expected of the best member of another tier."""
        others = np.where(self.tier == self.tier[outcome.member], -np.inf, self.expected)
        other = int(np.argmax(others))
        if np.isfinite(others[other]):
            score = expected_score(outcome.quality, float(self.expected[other]))
            self._append(outcome.x, outcome.member, other, score)

    def _append(self, x: Floats, first: int, second: int, score: float) -> None:
        a, b = self.tier[first], self.tier[second]
        if a == b:
            return
        points = np.zeros((self._count, self._count), np.float32)
        points[a, b], points[b, a] = score, 1 - score
        self.x = appended(self.x, self.count, x)
        self.wins = appended(self.wins, self.count, points.reshape(-1))
        self.count += 1


def weights(similarity: Floats, sharpness: float = 1.0) -> Floats:
    """[n, N], 10 · 10^(s · similarity ÷ largest of the row); where nothing is similar all stored queries count the
    same.

    >>> weights(np.array([[0.9, 0.5, 0.1]])).round(6).tolist()
    [[100.0, 35.938137, 12.915497]]
    """
    largest = similarity.max(axis=1, keepdims=True, initial=0.0)
    share = np.where(largest > 0, similarity / np.where(largest > 0, largest, 1), 0.0)
    return np.asarray(10 * 10 ** (sharpness * share))
