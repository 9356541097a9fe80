"""The cheapest that is good enough."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, barred, cheapest_of
from ensemble.outcomes.dense import Bools


class Enough(Policy):
    """The cheapest whose score is at least so high (FORC, arXiv 2308.06077; BEST-Route, arXiv 2506.22716)."""

    kind: Literal["enough"] = "enough"
    least: float = Field(default=0.5, allow_inf_nan=False)
    """In units of the scores. Omitted: 0.5."""
    fallback: Literal["best", "dearest"] = "best"
    """Who answers where nobody is good enough: the highest score, or the dearest. Omitted: best."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        scores = barred(prediction.quality, allowed)
        good = scores >= self.least
        if self.fallback == "best":
            last = scores == scores.max(axis=1, keepdims=True)
        else:
            cost = barred(prediction.cost, allowed)
            last = cost == cost.max(axis=1, keepdims=True)
        able = np.where(good.any(axis=1, keepdims=True), good, last)
        return Choice(scores, cheapest_of(prediction, able), np.ones(len(scores)))
