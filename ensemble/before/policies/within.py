"""The cheapest of those that are about as good as the best."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, barred, cheapest_of
from ensemble.outcomes.dense import Bools


class Within(Policy):
    """The cheapest whose score is within delta of the highest (HomoRouter, arXiv 2406.12429, "cost-saving").

    Means something only where scores are calibrated.
    """

    kind: Literal["within"] = "within"
    delta: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """In units of the scores; 0: the best, equal ones to the cheaper. Omitted: 0."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        scores = barred(prediction.quality, allowed)
        near = scores >= scores.max(axis=1, keepdims=True) - self.delta
        return Choice(scores, cheapest_of(prediction, near), np.ones(len(scores)))
