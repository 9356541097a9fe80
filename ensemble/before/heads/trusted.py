"""Trusted: predictions of right answers, weighed by how likely the predictor is to be right (arXiv 2309.15789)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from ensemble.before.guards.rightness import Trust
from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.nearest import nearest
from ensemble.before.heads.neighbours import Neighbours
from ensemble.outcomes.dense import Bools, Floats


@dataclass
class Trusted(Head, kind="trusted"):
    """Score g · p + (1 − g) · (1 − p): g by neighbours, p = P(the predictor is right) by the distance of the query.

    Who is not sure enough to do better than the member that is best on average does not score above that one.
    """

    base: Neighbours
    trust: Trust
    nearest: int
    """Queries of the store that a distance is a mean over."""
    best: int
    """Who is best on average."""
    sure: float
    """Least probability that the choice does better than that one; 0: it always stands."""
    threshold: float = 0.5
    """From which g on an answer is taken to be right."""
    binary: bool = False
    """Whether g is made 1 or 0 first, by the threshold."""

    learns: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        right = self.base.scores(x)
        share = (right >= self.threshold).astype(float) if self.binary else right
        scores = mixed(share, self.trust.at(self._away(x)))
        return held_back(scores, self.best, self.sure, 1 if self.binary else self.base.k)

    def of_task(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Queries [n, d] as one task: S1, S2, S3, each [M].

        S1 is the mean of g, S2 the share of the queries at which g reaches the threshold, S3 that share weighed by
        trust at the mean distance of the task; the fallback to the best on average is in S3.
        """
        right = self.base.scores(x)
        share = (right >= self.threshold).mean(axis=0)
        away = self._away(x).mean()
        s3 = mixed(share[None], self.trust.at(np.array([away])))
        return right.mean(axis=0), share, held_back(s3, self.best, self.sure, len(x))[0]

    def _away(self, x: Floats) -> Floats:
        """[n], mean distances, 1 − cosine, to the nearest queries of the store."""
        _, similarity = nearest(x, self.base.x, self.nearest, self.base.cells, self.base.compared)
        return np.asarray(1 - similarity.mean(axis=1))

    def learn(self, outcome: Outcome) -> None:
        self.base.learn(outcome)

    def widen(self, x: Floats, quality: Floats) -> Trusted:
        """The new member's own predictions are trusted as the others' are on average."""
        return replace(self, base=self.base.widen(x, quality), trust=self.trust.widen())


def mixed(share: Floats, trust: Floats) -> Floats:
    """share · trust + (1 − share) · (1 − trust), all in [0, 1]."""
    return share * trust + (1 - share) * (1 - trust)


def held_back(scores: Floats, best: int, sure: float, evidence: float) -> Floats:
    """[n, M]; who is not surely above the best-on-average member is held to just below it.

    Args:
        evidence: a score v is taken as the mean of so many draws, of variance v (1 − v) each.
    """
    roof = np.nextafter(scores[:, [best]], -np.inf)
    held = np.where(surely(scores, best, sure, evidence), scores, np.minimum(scores, roof))
    held[:, best] = scores[:, best]
    return held


def surely(scores: Floats, best: int, sure: float, evidence: float) -> Bools:
    """[n, M], whether P(a member > the best on average) reaches ``sure``, in the normal approximation."""
    base = scores[:, [best]]
    variance = (scores * (1 - scores) + base * (1 - base)) / evidence
    least = NormalDist().inv_cdf(sure) if sure > 0 else -np.inf
    return np.asarray((scores - base) / np.sqrt(np.maximum(variance, 1e-12)) >= least)
