"""A guard by distance: queries far from all that the router was fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.before.guards.guard import Guard
from ensemble.before.heads.nearest import blocks
from ensemble.outcomes.dense import Bools, Floats

_SAMPLE = 2048
"""Queries of the fit that are kept for comparison."""


@dataclass
class Distance(Guard, kind="distance"):
    """In doubt where the mean distance (1 − cosine) to the nearest kept queries is above a limit.

    A query of which the encoder knows nothing (a row of zeros) is at distance 1.
    """

    kept: Floats
    """[R, d], unit rows."""
    nearest: int
    """How many of them the mean is over."""
    limit: float

    @classmethod
    def fit(cls, x: Floats, share: float = 0.01, nearest: int = 5, seed: int = 0) -> Distance:
        """
        Args:
            x: [n, d], unit rows, n ≥ 2.
            share: of queries like those of the fit, what part is doubted.
            nearest: how many kept queries the mean is over.
        """
        order = np.random.default_rng([seed, 5]).permutation(len(x))[:_SAMPLE]
        kept = x[np.sort(order)].astype(np.float32)
        similarity = kept @ kept.T
        np.fill_diagonal(similarity, -np.inf)
        away = _mean_away(similarity, min(nearest, len(kept) - 1))
        return cls(kept, nearest, float(np.quantile(away, 1 - share)))

    def away(self, x: Floats) -> Floats:
        """[n], mean distances."""
        return far(x, self.kept, self.nearest)

    def doubtful(self, x: Floats) -> Bools:
        return np.asarray(self.away(x) > self.limit)


def far(x: Floats, store: Floats, nearest: int) -> Floats:
    """[n], mean of 1 − cosine to the nearest rows of a store."""
    found: Floats = np.zeros(len(x))
    for rows in blocks(len(x), len(store)):
        found[rows] = _mean_away(x[rows].astype(np.float32) @ store.T, min(nearest, len(store)))
    return found


def _mean_away(similarity: Floats, nearest: int) -> Floats:
    return np.asarray(1 - np.partition(similarity, -nearest, axis=1)[:, -nearest:].mean(axis=1))
