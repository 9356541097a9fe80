"""Similarity-weighted ranking: Bradley-Terry strengths from battles that count more the likelier the query."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.cells import Cells
from ensemble.before.heads.head import Head, Outcome, Preference
from ensemble.before.heads.nearest import Search, appended_to, indexed
from ensemble.before.heads.store import appended
from ensemble.before.solvers.strengths import bradley_terry, rated, tiers, win_share
from ensemble.before.targets.battles import Battles, expected_score, wins
from ensemble.outcomes.dense import Floats, Ints

_BLOCK = 1024
"""Queries compared with the store at once: bounds memory, not results."""
_DRAWN = 8
"""Rows of a cell that tell what its rows weigh on average, for a query that is not near it."""
_LEAST = 4096
"""Rows of the nearest cells that a query is compared with at least."""


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
    search: Search = "auto"
    """Whose weights are computed one by one: exact, of all stored queries; cells, of those of the nearest cells, while
    all of another cell weigh what eight of them do on average; auto, by how many there are."""
    compared: int | None = None
    """Stored queries of the nearest cells whose own weights are computed at least; ``None``: 4,096."""
    cells: Cells | None = None
    """Of the stored queries, where they are in cells."""

    learns: ClassVar[bool] = True
    prefers: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.cells = indexed(self.search, self.x[: self.count], self.cells)
        self._summary = _Summary(-1)

    @classmethod
    def fit(
        cls,
        x: Floats,
        found: Battles,
        expected: Floats,
        groups: int = 10,
        sharpness: float = 1.0,
        search: Search = "auto",
        compared: int | None = None,
    ) -> SimilarityRanking:
        """
        Args:
            x: [n, d], unit rows of all queries; those without a battle are not stored.
            found: of queries that are rows of ``x``.
            expected: [M], mean quality.
            groups: tiers at most.
            sharpness: see the field, as for the others.
        """
        everyone = np.arange(len(expected))
        overall = wins(found, len(x), everyone).sum(axis=0)
        tier = tiers(bradley_terry(overall, cls.pseudo), groups)
        points = wins(found, len(x), tier)
        fought = points.any(axis=(1, 2))
        rows = points[fought].reshape(int(fought.sum()), -1)
        store = (x[fought].astype(np.float32), rows, tier, np.asarray(expected, float), len(rows))
        return cls(*store, sharpness=sharpness, search=search, compared=compared)

    @property
    def _count(self) -> int:
        return int(self.tier.max()) + 1

    def strengths(self, x: Floats) -> Floats:
        """[n, T], log-odds of the tiers at the queries."""
        blocks = [self._strengths(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self._count))

    def _strengths(self, x: Floats) -> Floats:
        x = x.astype(np.float32, copy=False)
        points = self._points(x) if self.cells is None else self._nearby(x, self.cells)
        return bradley_terry(points.reshape(len(x), self._count, self._count), self.pseudo)

    def _points(self, x: Floats) -> Floats:
        """[n, T · T], weighted points of all battles."""
        return np.asarray(weights(x @ self.x[: self.count].T, self.sharpness) @ self.wins[: self.count])

    def _nearby(self, x: Floats, cells: Cells) -> Floats:
        """The same, where battles of a cell that is not near weigh what some of them do on average."""
        if self._summary.listing != cells.listings:
            self._summary = self._summarised(cells)
        probes = cells.probes(x, self.compared or _LEAST)
        visits = list(cells.visits(x, self.x[: self.count], probes))
        far = x @ self._summary.x.T
        largest = far.max(axis=1)
        for visit in visits:
            np.maximum.at(largest, visit.queries, visit.similarity.max(axis=1))
        mean = _weigh(far, largest, self.sharpness).reshape(len(x), -1, _DRAWN).mean(axis=2)
        # The last column is of the latest rows and of no cell at all.
        mean = np.hstack([mean, np.zeros((len(x), 1), mean.dtype)])
        np.put_along_axis(mean, probes, 0, axis=1)
        points = mean[:, :-1] @ self._summary.wins
        for visit in visits:
            weight = _weigh(visit.similarity, largest[visit.queries], self.sharpness)
            points[visit.queries] += weight @ self.wins[visit.places]
        return np.asarray(points)

    def _summarised(self, cells: Cells) -> _Summary:
        listed = [cells.places(cell) for cell in range(len(cells.centres))]
        drawn = [places[np.arange(_DRAWN) * len(places) // _DRAWN] for places in listed]
        wins = np.array([self.wins[places].sum(axis=0) for places in listed])
        return _Summary(cells.listings, self.x[np.concatenate(drawn)], wins)

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

    def widen(self, x: Floats, quality: Floats) -> SimilarityRanking:
        """The newcomer is a tier of its own. Each outcome is stored as a battle with every tier, against what is
        expected of its members."""
        count = self._count
        rivals = np.array([self.expected[self.tier == tier].mean() for tier in range(count)])
        points = np.zeros((len(x), count + 1, count + 1), np.float32)
        for row, reached in zip(points, quality, strict=True):
            row[-1, :-1] = [expected_score(float(reached), float(rival)) for rival in rivals]
            row[:-1, -1] = 1 - row[-1, :-1]
        old = self.wins[: self.count].reshape(-1, count, count)
        wins = np.concatenate([np.pad(old, ((0, 0), (0, 1), (0, 1))), points]).reshape(-1, (count + 1) ** 2)
        store = np.concatenate([self.x[: self.count], np.asarray(x, np.float32).reshape(len(x), self.x.shape[1])])
        mean = float(quality.mean()) if len(quality) else float(self.expected.mean())
        return replace(
            self,
            x=store,
            wins=wins,
            tier=np.append(self.tier, count),
            expected=np.append(self.expected, mean),
            count=len(store),
            cells=self.cells and self.cells.extended(store),
        )

    def _append(self, x: Floats, first: int, second: int, score: float) -> None:
        a, b = self.tier[first], self.tier[second]
        if a == b:
            return
        points = np.zeros((self._count, self._count), np.float32)
        points[a, b], points[b, a] = score, 1 - score
        self.x = appended(self.x, self.count, x)
        self.wins = appended(self.wins, self.count, points.reshape(-1))
        self.count += 1
        self.cells = appended_to(self.search, self.x[: self.count], self.cells)


@dataclass(frozen=True)
class _Summary:
    """Of what is stored in each cell."""

    listing: int
    """Of the cells, that it was made of."""
    x: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """[C · 8, d], some rows of each."""
    wins: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """[C, T · T], all points of each."""


def weights(similarity: Floats, sharpness: float = 1.0) -> Floats:
    """[n, N], 10 · 10^(s · similarity ÷ largest of the row); where nothing is similar all stored queries count the
    same.

    >>> weights(np.array([[0.9, 0.5, 0.1]])).round(6).tolist()
    [[100.0, 35.938137, 12.915497]]
    """
    return _weigh(similarity, similarity.max(axis=1, initial=0.0), sharpness)


def _weigh(similarity: Floats, largest: Floats, sharpness: float) -> Floats:
    """The same, of some of the stored queries, where the largest similarity [n] is of another."""
    largest = largest[:, None]
    share = np.where(largest > 0, similarity / np.where(largest > 0, largest, 1), 0)
    # A third of the time of 10 ** x.
    return np.asarray(10 * np.exp(float(np.log(10)) * sharpness * share))
