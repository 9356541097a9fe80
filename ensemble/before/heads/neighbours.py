"""Neighbours: a member does on a query as well as it did on the most similar queries of the past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.cells import AWAY, Cells
from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.nearest import Search, appended_to, blocks, indexed, nearest, nearest_rows
from ensemble.outcomes.dense import Bools, Floats, Ints, mean_observed

_OWN = AWAY
"""Similarity of a query to itself, where that does not count."""
_ROWS = 2**14
"""Of the store, that a block of queries is made for at least."""
_PART = 64
"""Queries whose neighbours are averaged at once: as many as a processor's cache is large."""
_RARE = 1 / 16
"""A member that is observed at fewer of the rows has its own compared, where the nearest rows hold too few of them."""


@dataclass
class Neighbours(Head, kind="neighbours"):
    """Mean quality over the k queries most similar to this one, of those at which the member was observed.

    An outcome is appended as a row in which one member is observed; that takes time in proportion to d, on average.
    """

    x: Floats
    """[N, d], unit rows: the store, oldest first."""
    quality: Floats
    """[N, M], NaN where not observed."""
    prior: Floats
    """[M], what is said of a member of whom no neighbour tells."""
    k: int
    temperature: float = 0.0
    """Weight of a neighbour is e^(similarity ÷ temperature); 0: all count the same."""
    pseudo: float = 0.0
    """Observations that the prior counts for."""
    similar: bool = False
    """Weight of a neighbour is its similarity, where positive; not with a temperature."""
    cap: int = 0
    """Rows that the store holds at most, beyond which the oldest is dropped for a new one; 0: no end."""
    half_life: float = 0.0
    """Outcomes learned after which a row counts half; rows of the fit are of one age. 0: rows do not age."""
    learned: int = 0
    """Outcomes taken in since the fit."""
    search: Search = "auto"
    """Where neighbours are sought: exact, among all rows; cells, in the nearest cells; auto, by how many rows there
    are. In cells, a member that the rows compared hold too few outcomes of has all of its own compared."""
    compared: int | None = None
    """Rows of the nearest cells that a query is compared with at least; ``None``: four for each neighbour, at least
    3,072."""
    cells: Cells | None = None
    """Of the rows, where they are sought in cells."""

    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._room: tuple[Floats, Floats] = (self.x, self.quality)
        self._end = len(self.x)
        self._seen = np.count_nonzero(~np.isnan(self.quality), axis=0)
        self.cells = indexed(self.search, self.x, self.cells)

    @classmethod
    def fit(
        cls,
        x: Floats,
        quality: Floats,
        k: int,
        temperature: float = 0.0,
        pseudo: float = 0.0,
        search: Search = "auto",
        compared: int | None = None,
    ) -> Neighbours:
        """
        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
        """
        prior = mean_observed(quality, empty=0.0)
        store = (x.astype(np.float32), quality.astype(np.float32))
        return cls(*store, prior, k, temperature, pseudo, search=search, compared=compared)

    def scores(self, x: Floats) -> Floats:
        return np.asarray(self.scores_at(x, (self.k,))[0])

    def scores_at(self, x: Floats, ks: Sequence[int], own: Ints | None = None) -> Floats:
        """[K, n, M], the scores with other numbers of neighbours, for one comparison with the store.

        Args:
            own: [n], the row of the store that is the query itself and says nothing of it; all rows are compared.
        """
        heads = [replace(self, k=k) for k in ks] if tuple(ks) != (self.k,) else [self]
        found: Floats = np.zeros((len(heads), len(x), self.quality.shape[1]))
        x = x.astype(np.float32, copy=False)
        for rows in blocks(len(x), max(_ROWS, len(self.x) if own is not None else 0)):
            mine = None if own is None else own[rows]
            candidates = self._near(x[rows], self._wide(max(ks)), mine)
            for place, head in enumerate(heads):
                scores, told = head._read(*candidates)
                found[place, rows] = head._completed(scores, told, x[rows], mine)
        return found

    def _near(self, x: Floats, k: int, own: Ints | None) -> tuple[Ints, Floats]:
        """[n, k], places and similarities of the nearest rows, in no order."""
        if own is None:
            return nearest(x, self.x, k, self.cells, self.compared)
        similarity = x @ self.x.T
        similarity[np.arange(len(x)), own] = _OWN
        return nearest_rows(similarity, k)

    def _wide(self, k: int) -> int:
        """Nearest rows that are likely to hold k outcomes of each member."""
        if self._whole:
            return k
        share = max(float(np.median(self._seen)) / len(self.x), _RARE)
        return min(math.ceil(1.25 * k / share) + _PART, len(self.x))

    @property
    def _whole(self) -> bool:
        """Whether every member was observed at every row."""
        return bool((self._seen == len(self.x)).all())

    def _read(self, places: Ints, similarity: Floats) -> tuple[Floats, Ints]:
        """Scores [n, M] by rows of the store, each member's by the k most similar ones at which it was observed; and
        how many these are [n, M]."""
        if similarity.shape[1] > self.k:
            # Of equally similar ones the latest: what is said of the very same query shows at once.
            order = np.lexsort((-places, -similarity), axis=1)
            order = order[:, : self.k] if self._whole else order
            places, similarity = (
                np.take_along_axis(places, order, axis=1),
                np.take_along_axis(similarity, order, axis=1),
            )
        found, told = np.zeros((len(places), len(self.prior))), np.zeros((len(places), len(self.prior)), int)
        for start in range(0, len(places), _PART):
            part = slice(start, start + _PART)
            found[part], told[part] = self._means(places[part], similarity[part])
        return found, told

    def _means(self, places: Ints, similarity: Floats) -> tuple[Floats, Ints]:
        """The same of rows [n, R] of which those beyond the k-th are in the order of similarity."""
        quality, weight = self.quality[places], self._weights(places, similarity)
        if self._whole:
            return weighted(quality, None, weight, self.prior, self.pseudo), np.array(self.k)
        counts = ~np.isnan(quality) & (similarity > _OWN)[:, :, None]
        told = np.count_nonzero(counts[:, : self.k], axis=1)
        if counts.shape[1] > self.k:
            others = counts[:, self.k :]
            others &= np.cumsum(others, axis=1, dtype=np.int32) + told[:, None] <= self.k
            told += np.count_nonzero(others, axis=1)
        return weighted(quality, counts, weight, self.prior, self.pseudo), told

    def _completed(self, scores: Floats, told: Ints, x: Floats, own: Ints | None) -> Floats:
        """The scores, where a member was observed at too few of the rows compared by all at which it was."""
        for member, least in enumerate(np.minimum(self._seen, self.k)):
            short = np.flatnonzero(told[:, member] < least)
            if len(short):
                rows = np.flatnonzero(~np.isnan(self.quality[:, member]))
                similarity = x[short] @ self.x[rows].T
                if own is not None:
                    similarity[rows == own[short, None]] = _OWN
                near, close = nearest_rows(similarity, self.k)
                scores[short, member] = self._read(rows[near], close)[0][:, member]
        return scores

    def _weights(self, places: Ints, similarity: Floats) -> Floats:
        """[n, R]."""
        weight: Floats = np.ones_like(similarity)
        if self.temperature > 0:
            away = similarity - similarity.max(axis=1, keepdims=True, initial=_OWN)
            weight = np.exp(away.astype(float) / self.temperature)
        elif self.similar:
            weight = np.maximum(similarity, 0)
        if self.half_life > 0:
            age = np.minimum(len(self.x) - 1 - places, self.learned)
            weight = np.asarray(weight * 2 ** (-age / self.half_life))
        return np.where(similarity > _OWN, weight, 0)

    def learn(self, outcome: Outcome) -> None:
        if self._end == len(self._room[0]):
            self._enlarge()
        x, quality = self._room
        x[self._end], quality[self._end] = outcome.x, np.nan
        quality[self._end, outcome.member] = outcome.quality
        start, self._end = self._end - len(self.x), self._end + 1
        self._seen[outcome.member] += 1
        self.cells = appended_to(self.search, x[start : self._end], self.cells)
        while self.cap and self._end - start > self.cap:
            self._seen -= ~np.isnan(quality[start])
            start += 1
            if self.cells is not None:
                self.cells.drop()
        self.x, self.quality = x[start : self._end], quality[start : self._end]
        self.learned += 1

    def _enlarge(self) -> None:
        """Move the store to the front of room for half as many rows again; who still reads the old arrays may."""
        spare = max(len(self.x) // 2, 64)
        self._room = (_roomier(self.x, spare), _roomier(self.quality, spare))
        self._end = len(self.x)

    def widen(self, x: Floats, quality: Floats) -> Neighbours:
        """Its answers are rows of their own, which are nobody else's neighbours."""
        holes = np.full((len(self.quality), 1), np.nan, np.float32)
        rows = np.full((len(x), self.quality.shape[1] + 1), np.nan, np.float32)
        rows[:, -1] = quality
        store = np.concatenate([self.x, np.asarray(x, np.float32).reshape(len(x), self.x.shape[1])])
        return replace(
            self,
            x=store,
            quality=np.concatenate([np.concatenate([self.quality, holes], axis=1), rows]),
            prior=np.append(self.prior, quality.mean() if len(quality) else self.prior.mean()),
            learned=self.learned + len(x),
            cells=self.cells and self.cells.extended(store),
        )


def _roomier(rows: Floats, spare: int) -> Floats:
    return np.concatenate([rows, np.empty((spare, rows.shape[1]), rows.dtype)])


def weighted(quality: Floats, counts: Bools | None, weight: Floats, prior: Floats, pseudo: float) -> Floats:
    """Means [n, M] of qualities [n, R, M], where these count, with weights [n, R], drawn to the prior [M].

    Args:
        counts: [n, R, M]; ``None``: all do.
    """
    sums: Floats
    if counts is None:
        number, total = np.array(max(quality.shape[1], 1)), weight.sum(axis=1, keepdims=True)
        sums = weight[:, None] @ quality
    else:
        number = np.maximum(np.count_nonzero(counts, axis=1), 1)
        total = (weight[:, None] @ counts.astype(weight.dtype))[:, 0]
        sums = weight[:, None] @ np.where(counts, quality, 0)
    scale = pseudo * total / number
    has = total + scale
    return np.asarray(np.where(has > 0, (sums[:, 0] + scale * prior) / np.where(has > 0, has, 1), prior))
