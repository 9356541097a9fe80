"""A weighted mean of quality and cheapness."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, best_of
from ensemble.outcomes.dense import Bools


class Mix(Policy):
    """The highest (1 - mu) × quality - mu × scale × cost (CARROT, arXiv 2502.03261).

    The same choices as a price of mu × scale ÷ (1 - mu); mu = 1 takes the cheapest whatever its quality.
    """

    kind: Literal["mix"] = "mix"
    mu: float = Field(default=0.0, ge=0, le=1)
    """0: quality alone; 1: cost alone. Omitted: 0."""
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Quality that a unit of money stands for: 100 makes a cent of a dollar worth as much as a right answer.
    Omitted: 1."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        scores = (1 - self.mu) * prediction.quality - self.mu * self.scale * prediction.cost
        return best_of(scores, allowed, prediction.cost)
