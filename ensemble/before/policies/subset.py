"""A few members, who vote."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, barred
from ensemble.outcomes.dense import Bools


class Subset(Policy):
    """The members with the highest scores answer, and vote with their scores (SelectLLM, arXiv 2408.08545).

    ``chosen`` is the highest scored of them. Scores are confidences: who has none (0 or less) is not asked.
    """

    kind: Literal["subset"] = "subset"
    size: int = Field(default=3, ge=1)
    """Members that are asked at most. Omitted: 3."""
    weighted: bool = True
    """Votes count as much as the member's score ("WeightedMaxConf"); else all the same. Omitted: yes."""
    least: float | None = Field(default=None, allow_inf_nan=False)
    """Only members with this score at least are asked ("LabelledMaxConf"); where nobody has it, the one that is best
    overall answers alone. Omitted: any score."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        scores = barred(prediction.quality, allowed)
        rows = np.arange(len(scores))
        # Equal scores: the cheaper, then the first.
        order = np.lexsort((prediction.cost, -scores), axis=-1)
        asked = np.zeros(scores.shape, bool)
        np.put_along_axis(asked, order[:, : self.size], True, axis=1)
        asked &= allowed & (scores > 0)
        chosen = order[:, 0]
        if self.least is not None:
            asked &= scores >= self.least
            best = np.where(allowed[:, prediction.best], prediction.best, chosen)
            chosen = np.where(asked.any(axis=1), chosen, best)
        weights = np.where(asked, scores if self.weighted else 1.0, 0.0)
        alone = ~asked.any(axis=1)
        weights[rows[alone], chosen[alone]] = 1.0
        return Choice(scores, chosen, np.ones(len(scores)), weights)
