"""Quality less what it costs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, best_of
from ensemble.outcomes.dense import Bools


class Utility(Policy):
    """The highest quality − price × cost."""

    kind: Literal["utility"] = "utility"
    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Quality that a unit of money is worth; 0: cost does not count. Omitted: 0."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        return best_of(prediction.quality - self.price * prediction.cost, allowed, prediction.cost)
