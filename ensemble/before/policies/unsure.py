"""A draw among a few where nobody is sure."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, barred, best_of
from ensemble.outcomes.dense import Bools


class Unsure(Policy):
    """The highest score where it is above a limit; else any of the highest few, all alike (arXiv 2405.00467)."""

    kind: Literal["unsure"] = "unsure"
    least: float = Field(default=0.6, allow_inf_nan=False)
    """In units of the scores; one that reaches no further is not sure. Omitted: 0.6."""
    size: int = Field(default=3, ge=1)
    """Members that are drawn from. Omitted: 3."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        scores = barred(prediction.quality, allowed)
        sure = best_of(scores, allowed, prediction.cost)
        order = np.argsort(-scores, axis=1, kind="stable")
        among = np.minimum(self.size, allowed.sum(axis=1))
        rows = np.arange(len(scores))
        drawn = order[rows, (random.random(len(scores)) * among).astype(int)]
        known = scores.max(axis=1) > self.least
        return Choice(scores, np.where(known, sure.chosen, drawn), np.where(known, 1.0, 1.0 / among))
