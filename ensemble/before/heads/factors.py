"""Factors: quality, cost, latency and load of each member, weighted into one score; limits come before weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.outcomes.dense import Floats

_UNKNOWN = 0.5
"""Score of what nothing is known of: neither good nor bad."""


@dataclass
class Factors(Head, kind="factors"):
    """Σ w_f · score_f over quality, cost, latency and load, divided by Σ w_f; all scores are in [0, 1].

    The score of cost and of latency is 1 at the member with the least and 0 at the one with the most; of the load it is
    1 ÷ (1 + answers under way). A member beyond a limit scores minus infinity; where that leaves nobody the cheapest
    scores 0 and all others minus infinity.
    """

    quality: Head
    cost: Floats
    """[M], money for an answer, NaN where not known; a running mean of the outcomes."""
    latency: Floats
    """[M], seconds for an answer, NaN where not known; a running mean of the outcomes."""
    load: Floats
    """[M], answers under way."""
    weights: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2)
    """Of quality, latency, cost and load."""
    least_quality: float = 0.0
    """Members below are not eligible."""
    most_cost: float | None = None
    most_latency: float | None = None
    most_load: float | None = None
    memory: float = 0.1
    """What a new outcome's cost and latency count in their running means."""

    learns: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        quality = self.quality.scores(x)
        latency, cost, load = self.weights[1:]
        fixed = latency * frugality(self.latency) + cost * frugality(self.cost) + load / (1 + self.load)
        scores = (self.weights[0] * np.clip(quality, 0, 1) + fixed) / sum(self.weights)
        able = self._within() & (quality >= self.least_quality)
        scores = np.where(able, scores, -np.inf)
        cheapest = int(np.argmin(np.nan_to_num(self.cost, nan=np.inf)))
        scores[~able.any(axis=1), cheapest] = 0.0
        return np.asarray(scores)

    def _within(self) -> np.ndarray:
        """[M], who is within the limits of cost, latency and load; what is not known breaks none."""
        able = np.ones(len(self.cost), bool)
        for values, most in (
            (self.cost, self.most_cost),
            (self.latency, self.most_latency),
            (self.load, self.most_load),
        ):
            if most is not None:
                able &= ~(values > most)
        return able

    def learn(self, outcome: Outcome) -> None:
        for values, new in ((self.cost, outcome.cost), (self.latency, outcome.latency)):
            old = values[outcome.member]
            if not np.isnan(new):
                values[outcome.member] = new if np.isnan(old) else old + self.memory * (new - old)
        if self.quality.learns:
            self.quality.learn(outcome)

    def priced(self, cost: float) -> Self:
        return replace(self, cost=np.append(self.cost[:-1], cost))

    def widen(self, x: Floats, quality: Floats) -> Factors:
        """Latency of the new member is not known until it has answered, and cost until it is told."""
        return replace(
            self,
            quality=self.quality.widen(x, quality),
            cost=np.append(self.cost, np.nan),
            latency=np.append(self.latency, np.nan),
            load=np.append(self.load, 0.0),
        )


@dataclass
class PlainFactors(Factors, kind="plain-factors"):
    """Factors whose quality is the same for each query."""

    reads: ClassVar[bool] = False


def frugality(values: Floats) -> Floats:
    """[M], 1 for the least value and 0 for the most, linear between them; 1 for all where they are equal.

    >>> frugality(np.array([1.0, 2.0, 3.0, np.nan])).tolist()
    [1.0, 0.5, 0.0, 0.5]
    """
    known = ~np.isnan(values)
    if not known.any():
        return np.full(len(values), _UNKNOWN)
    least, most = values[known].min(), values[known].max()
    scores = (most - values) / (most - least) if most > least else np.ones(len(values))
    return np.where(known, scores, _UNKNOWN)
