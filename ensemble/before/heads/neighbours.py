"""Neighbours: a member does on a query as well as it did on the most similar queries of the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.outcomes.dense import Floats, mean_observed

_BLOCK = 1024
"""Queries compared with the whole store at once: bounds memory, not results."""


@dataclass
class Neighbours(Head, kind="neighbours"):
    """Mean quality of the k most similar observed queries, for each member over what it was asked."""

    x: Floats
    """[N, d], unit rows: the store."""
    quality: Floats
    """[N, M], NaN where not observed."""
    prior: Floats
    """[M], what is said of a member of whom no neighbour tells."""
    k: int
    temperature: float = 0.0
    """Weight of a neighbour is e^(similarity ÷ temperature); 0: all count the same."""
    pseudo: float = 0.0
    """Observations that the prior counts for."""

    learns: ClassVar[bool] = True

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
        blocks = [self._scores(x[start : start + _BLOCK]) for start in range(0, len(x), _BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.quality.shape[1]))

    def _scores(self, x: Floats) -> Floats:
        nearest, similarity = nearest_rows(x.astype(np.float32) @ self.x.T, self.k)
        weight = np.ones_like(similarity)
        if self.temperature > 0:
            weight = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / self.temperature)
        return weighted(self.quality[nearest], weight, self.prior, self.pseudo)

    def learn(self, outcome: Outcome) -> None:
        row = np.full((1, self.quality.shape[1]), np.nan, np.float32)
        row[0, outcome.member] = outcome.quality
        self.x = np.concatenate([self.x, outcome.x[None].astype(np.float32)])
        self.quality = np.concatenate([self.quality, row])

    def widen(self, x: Floats, quality: Floats) -> Neighbours:
        rows = np.full((len(x), self.quality.shape[1] + 1), np.nan, np.float32)
        rows[:, -1] = quality
        holes = np.full((len(self.quality), 1), np.nan, np.float32)
        prior = np.append(self.prior, quality.mean() if len(quality) else self.prior.mean())
        return Neighbours(
            np.concatenate([self.x, x.astype(np.float32)]),
            np.concatenate([np.concatenate([self.quality, holes], axis=1), rows]),
            prior,
            self.k,
            self.temperature,
            self.pseudo,
        )


def nearest_rows(similarity: Floats, k: int) -> tuple[np.ndarray, Floats]:
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
    scale = weight.mean(axis=1, keepdims=True) * pseudo
    has = total + scale
    return np.where(has > 0, (sums + scale * prior) / np.where(has > 0, has, 1), prior)
