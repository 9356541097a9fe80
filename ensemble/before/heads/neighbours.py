"""Neighbours: a member does on a query as well as it did on the most similar queries of the past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.outcomes.dense import Floats, Ints, mean_observed

_OWN = -4.0
"""Below every similarity of unit rows."""
_CELLS = 2**24
"""Similarities that are held at once: bounds memory, not results."""


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

    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._room: tuple[Floats, Floats] = (self.x, self.quality)
        self._end = len(self.x)
        self._whole = not np.isnan(self.quality).any()

    @classmethod
    def fit(cls, x: Floats, quality: Floats, k: int, temperature: float = 0.0, pseudo: float = 0.0) -> Neighbours:
        """
        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
        """
        prior = mean_observed(quality, empty=0.0)
        return cls(x.astype(np.float32), quality.astype(np.float32), prior, k, temperature, pseudo)

    def scores(self, x: Floats) -> Floats:
        return np.asarray(self.scores_at(x, (self.k,))[0])

    def scores_at(self, x: Floats, ks: Sequence[int], own: Ints | None = None) -> Floats:
        """[K, n, M], the scores with other numbers of neighbours, for one comparison with the store.

        Args:
            own: [n], the row of the store that is the query itself and says nothing of it.
        """
        heads = [replace(self, k=k) for k in ks] if tuple(ks) != (self.k,) else [self]
        found: Floats = np.zeros((len(heads), len(x), self.quality.shape[1]))
        for rows in blocks(len(x), len(self.x)):
            similarity = x[rows].astype(np.float32) @ self.x.T
            if own is not None:
                similarity[np.arange(len(similarity)), own[rows]] = _OWN
            for place, head in enumerate(heads):
                found[place, rows] = head._read(similarity)
        return found

    def _read(self, similarity: Floats) -> Floats:
        """[n, M] by similarities [n, N] to the store."""
        if self._whole:
            return self._means(similarity, np.arange(len(self.x)), slice(None))
        seen = ~np.isnan(self.quality)
        members = range(self.quality.shape[1])
        return np.concatenate(
            [self._means(similarity, np.flatnonzero(seen[:, m]), slice(m, m + 1)) for m in members], axis=1
        )

    def _means(self, similarity: Floats, rows: Ints, members: slice) -> Floats:
        """[n, members' number] over the nearest of some rows of the store."""
        known = similarity if len(rows) == similarity.shape[1] else similarity[:, rows]
        nearest, near = nearest_rows(known, self.k)
        nearest = rows[nearest]
        weight = self._weights(nearest, near)
        return weighted(self.quality[nearest, members], weight, self.prior[members], self.pseudo)

    def _weights(self, nearest: Ints, similarity: Floats) -> Floats:
        """[n, k]."""
        if not similarity.shape[1]:
            return similarity
        weight: Floats = np.ones_like(similarity)
        if self.temperature > 0:
            weight = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / self.temperature)
        elif self.similar:
            weight = np.maximum(similarity, 0)
        if self.half_life > 0:
            age = np.minimum(len(self.x) - 1 - nearest, self.learned)
            weight = weight * 2 ** (-age / self.half_life)
        return np.where(similarity > _OWN, weight, 0)

    def learn(self, outcome: Outcome) -> None:
        if self._end == len(self._room[0]):
            self._enlarge()
        start, end = self._end - len(self.x), self._end + 1
        x, quality = self._room
        x[self._end], quality[self._end] = outcome.x, np.nan
        quality[self._end, outcome.member] = outcome.quality
        if self.cap and end - start > self.cap:
            start = end - self.cap
        self.x, self.quality = x[start:end], quality[start:end]
        self._end, self._whole = end, self._whole and self.quality.shape[1] == 1
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
        return replace(
            self,
            x=np.concatenate([self.x, np.asarray(x, np.float32).reshape(len(x), self.x.shape[1])]),
            quality=np.concatenate([np.concatenate([self.quality, holes], axis=1), rows]),
            prior=np.append(self.prior, quality.mean() if len(quality) else self.prior.mean()),
            learned=self.learned + len(x),
        )


def _roomier(rows: Floats, spare: int) -> Floats:
    return np.concatenate([rows, np.empty((spare, rows.shape[1]), rows.dtype)])


def blocks(queries: int, store: int) -> Iterator[slice]:
    """Queries that are compared with the whole store at once."""
    size = max(1, _CELLS // max(store, 1))
    return (slice(start, start + size) for start in range(0, queries, size))


def nearest_rows(similarity: Floats, k: int) -> tuple[Ints, Floats]:
    """The k most similar columns of each row [n, N], in no order: places and similarities, both [n, min(k, N)]."""
    if k >= similarity.shape[1]:
        places = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    else:
        places = np.argpartition(similarity, -k, axis=1)[:, -k:]
    return places, np.take_along_axis(similarity, places, axis=1)


def weighted(quality: Floats, weight: Floats, prior: Floats, pseudo: float) -> Floats:
    """Means [n, M] over the neighbours of each query [n, k, M] with weights [n, k], drawn to the prior [M]."""
    seen = ~np.isnan(quality)
    total = np.einsum("nk,nkm->nm", weight, seen.astype(weight.dtype))
    sums = np.einsum("nk,nkm->nm", weight, np.nan_to_num(quality))
    scale = weight.mean(axis=1, keepdims=True) * pseudo if weight.shape[1] else np.zeros((len(weight), 1))
    has = total + scale
    return np.where(has > 0, (sums + scale * prior) / np.where(has > 0, has, 1), prior)
