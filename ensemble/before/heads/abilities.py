"""Abilities: each member is a vector of which only a Gaussian is known, and every outcome tells a little more of it.

The families of models differ in how a query and a vector make the odds of a right answer; what stands here holds for
all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.solvers import newcomer
from ensemble.before.solvers.convex import sigmoid
from ensemble.outcomes.dense import Floats

_STEPS, _CLOSE = 30, 1e-8
"""Newton's steps at most for one vector, and the change that is none."""
_BLOCK = 8192
"""Queries that are looked at together: bounds memory, not results."""
_LEAST = 0.001
"""Least variance that a new member's numbers are given: two members that agree tell little of a third."""


@dataclass
class Abilities(Head):
    """Base of heads with a vector for each member and log-odds that follow from it and the query."""

    vectors: Floats
    """[M, r]: means."""
    covariances: Floats
    """[M, r, r]."""
    own: Floats | None = field(default=None, kw_only=True)
    """[d + 1, M], weights of log-odds beside those of the vector, of members that came after the fit and are unlike the
    others; the last row is the constant. ``None``: nobody has any."""

    learns: ClassVar[bool] = True

    @abstractmethod
    def linearised(self, x: Floats, vector: Floats) -> tuple[Floats, Floats]:
        """Log-odds [n] that a member with the vector [r] is right on x [n, d], and their slopes [n, r] there."""

    @abstractmethod
    def logits(self, x: Floats) -> Floats:
        """[n, M], log-odds of right answers."""

    def scores(self, x: Floats) -> Floats:
        return sigmoid(self.logits(x) + self._beside(x))

    def _beside(self, x: Floats) -> Floats | float:
        """[n, M], log-odds beside those of the vectors."""
        return 0.0 if self.own is None else np.asarray(x @ self.own[:-1] + self.own[-1])

    def spread(self, x: Floats) -> Floats:
        """The delta method: p(1 - p) times the standard deviation of the log-odds."""
        spread = np.empty((len(x), len(self.vectors)))
        beside = np.broadcast_to(self._beside(x), spread.shape)
        for member, vector in enumerate(self.vectors):
            logits, slopes = self.linearised(x, vector)
            logits = logits + beside[:, member]
            variance = np.einsum("nr,nr->n", slopes @ self.covariances[member], slopes)
            spread[:, member] = variances(logits) * np.sqrt(np.maximum(variance, 0))
        return spread

    def learn(self, outcome: Outcome) -> None:
        """A step of the extended Kalman filter; no other member's vector changes."""
        member = outcome.member
        logits, slopes = self.linearised(outcome.x[None], self.vectors[member])
        if self.own is not None:
            logits = logits + outcome.x @ self.own[:-1, member] + self.own[-1, member]
        slope, weight = slopes[0], variances(logits)[0]
        known = self.covariances[member] @ slope
        self.covariances[member] -= np.outer(known, known) * (weight / (1 + weight * (slope @ known)))
        self.vectors[member] += self.covariances[member] @ slope * (outcome.quality - sigmoid(logits)[0])

    def widen(self, x: Floats, quality: Floats) -> Self:
        """The new vector is the likeliest one given its outcomes and how the known members' vectors are spread."""
        return self.joined(x, quality, self.vectors.mean(axis=0), _spread(self.vectors))

    def joined(self, x: Floats, quality: Floats, mean: Floats, spread: Floats) -> Self:
        """With one more member, last, whose vector is drawn around a mean [r] with a covariance [r, r].

        Vectors that were made for other members may have no place for what this one is good at: where its outcomes
        foretell each other better so, it has weights of its own beside the vector.
        """
        precision = np.linalg.inv(spread)
        vector, covariance = self.likeliest(x, quality, mean, precision)
        own = np.zeros(x.shape[1] + 1) if self.own is None else np.zeros(len(self.own))
        if len(x):
            logits, slopes = self.linearised(x, vector)
            away, weights = newcomer.beside(slopes, spread, x, quality, logits - slopes @ (vector - mean))
            if weights.any():
                vector, own = mean + away, weights
        known = np.zeros((len(own), len(self.vectors))) if self.own is None else self.own
        return replace(
            self,
            vectors=np.concatenate([self.vectors, vector[None]]),
            covariances=np.concatenate([self.covariances, covariance[None]]),
            own=None if self.own is None and not own.any() else np.column_stack([known, own]),
        )

    def likeliest(self, x: Floats, quality: Floats, mean: Floats, precision: Floats) -> tuple[Floats, Floats]:
        """Mode [r] and covariance [r, r] of a vector with a Gaussian before, after outcomes (Laplace's method)."""
        vector, reached = mean, self._evidence(x, quality, mean, mean, precision)
        for _ in range(_STEPS if len(x) else 0):
            logits, slopes = self.linearised(x, vector)
            slope = slopes.T @ (quality - sigmoid(logits)) - precision @ (vector - mean)
            step = np.linalg.solve(precision + (slopes.T * variances(logits)) @ slopes, slope)
            scale = 1.0
            while scale > _CLOSE:
                tried = self._evidence(x, quality, vector + scale * step, mean, precision)
                if tried > reached:
                    break
                scale /= 2
            else:
                break
            vector = vector + scale * step
            change, reached = tried - reached, tried
            if change < _CLOSE:
                break
        return vector, self._covariance(x, vector, precision)

    def settled(self, x: Floats, quality: Floats, variance: float) -> Self:
        """With the covariances that follow from all outcomes at the vectors as they are.

        Args:
            quality: [n, M], NaN where not observed.
            variance: of each number of a vector, before any outcome.
        """
        precision = np.eye(self.vectors.shape[1]) / variance
        seen = ~np.isnan(quality)
        found = [self._covariance(x[seen[:, m]], vector, precision) for m, vector in enumerate(self.vectors)]
        return replace(self, covariances=np.stack(found))

    def _covariance(self, x: Floats, vector: Floats, precision: Floats) -> Floats:
        total = precision.copy()
        for first in range(0, len(x), _BLOCK):
            logits, slopes = self.linearised(x[first : first + _BLOCK], vector)
            total += (slopes.T * variances(logits)) @ slopes
        found = np.linalg.inv(total)
        return np.asarray((found + found.T) / 2)

    def _evidence(self, x: Floats, quality: Floats, vector: Floats, mean: Floats, precision: Floats) -> float:
        """Log of likelihood times prior, less a constant."""
        away = vector - mean
        prior = -float(away @ precision @ away) / 2
        if not len(x):
            return prior
        logits, _ = self.linearised(x, vector)
        return prior + float((quality * logits - np.logaddexp(0, logits)).sum())


def _spread(vectors: Floats) -> Floats:
    """[r, r], how members' vectors [M, r] are spread: half as they vary together, half as if each number were apart."""
    away = vectors - vectors.mean(axis=0)
    together = away.T @ away / len(vectors)
    apart = np.diag(np.maximum(together.diagonal().mean(), _LEAST) * np.ones(len(together)))
    return np.asarray((together + apart) / 2)


def variances(logits: Floats) -> Floats:
    """p(1 - p) of log-odds."""
    return np.asarray(sigmoid(logits) * sigmoid(-logits))


def log_odds(p: Floats) -> Floats:
    """Of probabilities, which are kept away from 0 and 1."""
    kept = np.clip(p, 0.01, 0.99)
    return np.asarray(np.log(kept) - np.log1p(-kept))
