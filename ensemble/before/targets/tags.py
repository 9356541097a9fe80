"""Tags: how much of a query belongs to each of K kinds, by its embedding.

Knows nothing of outcomes.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ensemble.before.heads.linear import Softmax
from ensemble.before.routing.parts import Part
from ensemble.before.solvers.convex import shared
from ensemble.outcomes.dense import Floats, Ints

_SAMPLE = 50_000
"""Queries that centres are sought in; more would only take longer."""
_MANY = 10_000
"""Queries from which on three starts are enough."""


class Tagger(Part):
    """Says which tags a query has."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Tags that there are, K."""

    @abstractmethod
    def weights(self, x: Floats) -> Floats:
        """[n, K] of embeddings [n, d]: what each tag counts for a query; rows sum to 1."""

    def credit(self, x: Floats) -> Floats:
        """[n, K], how much of an outcome at a query counts for each tag; as it is weighed, unless a kind differs."""
        return self.weights(x)


@dataclass
class Centred(Tagger):
    """Tags that are points among the embeddings."""

    centres: Floats
    """[K, d], unit rows."""

    @property
    def size(self) -> int:
        return len(self.centres)

    def nearest(self, x: Floats, count: int) -> tuple[Ints, Floats]:
        """[n, count], the nearest centres in order, and their distances 1 − cosine."""
        away = 1 - x @ self.centres.T
        order = np.argsort(away, axis=1, kind="stable")[:, :count]
        return order, np.take_along_axis(away, order, axis=1)

    def _spread(self, order: Ints, shares: Floats) -> Floats:
        weights = np.zeros((len(order), self.size))
        np.put_along_axis(weights, order, np.broadcast_to(shares, order.shape), axis=1)
        return weights


@dataclass
class NearestTags(Centred, kind="nearest-tags"):
    """The nearest centres count e^(−sharpness · distance) each; an outcome counts for the nearest alone."""

    count: int
    sharpness: float

    def weights(self, x: Floats) -> Floats:
        order, away = self.nearest(x, self.count)
        return self._spread(order, shared(-self.sharpness * away))

    def credit(self, x: Floats) -> Floats:
        order, _ = self.nearest(x, 1)
        return self._spread(order, np.ones(1))


@dataclass
class RankedTags(Centred, kind="ranked-tags"):
    """The j-th nearest of ``count`` centres counts decay^(j − 1), made to sum to 1."""

    count: int
    decay: float

    def weights(self, x: Floats) -> Floats:
        order, _ = self.nearest(x, self.count)
        return self._spread(order, rank_shares(order.shape[1], self.decay))


@dataclass
class LikelyTags(Tagger, kind="likely-tags"):
    """Tags by a classifier's probabilities."""

    classifier: Softmax

    @property
    def size(self) -> int:
        return int(self.classifier.weights.shape[1])

    def weights(self, x: Floats) -> Floats:
        return self.classifier.scores(x)


def rank_shares(count: int, decay: float) -> Floats:
    """[count], decay^(j − 1) for j from 1, made to sum to 1; decay 0: the first alone, 1: all equal.

    >>> rank_shares(2, 0.5).round(6).tolist()
    [0.666667, 0.333333]
    """
    raised: Floats = float(decay) ** np.arange(count)
    return np.asarray(raised / raised.sum())


def clustered(x: Floats, count: int, seed: int = 0, starts: int = 10) -> Floats:
    """[K, d] unit rows: centres of k-means, K = count or the number of queries, if that is less."""
    from sklearn.cluster import KMeans

    if len(x) > _SAMPLE:
        x = x[np.sort(np.random.default_rng([seed, 3]).choice(len(x), _SAMPLE, replace=False))]
    found = KMeans(min(count, len(x)), n_init=min(starts, 3) if len(x) > _MANY else starts, random_state=seed).fit(x)
    return unit(np.asarray(found.cluster_centers_, float))


def centroids(x: Floats, tags: Ints) -> Floats:
    """[K, d] unit rows: the mean direction of each tag's queries."""
    sums = np.zeros((int(tags.max()) + 1, x.shape[1]))
    np.add.at(sums, tags, x)
    return unit(sums)


def classified(x: Floats, tags: Ints, penalty: float) -> LikelyTags:
    """A softmax regression of the tags, which are 0 … K − 1."""
    return LikelyTags(Softmax.fit(x, np.eye(int(tags.max()) + 1)[tags], penalty))


def unit(rows: Floats) -> Floats:
    """The rows at length 1; zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1))
