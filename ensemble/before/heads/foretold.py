"""From confidences to another score: how near a member's confidence is to that which a right one is expected to have.

One of the policies compared in "Lessons learned from LLM routing" (arXiv 2405.00467), where it does no better than the
highest confidence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.linear import Ridge
from ensemble.outcomes.dense import Floats, Ints

_PENALTY = 1e-3
"""Of the regression on confidences: enough that equal columns of them can be solved."""


@dataclass
class Foretold(Head, kind="foretold"):
    """Score −|confidence − the confidence that a regression on all members' confidences foretells|."""

    confidences: Head
    regression: Ridge

    learns: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    @classmethod
    def fit(cls, confidences: Head, x: Floats, right: Floats, order: Ints) -> Foretold:
        """
        Args:
            x: [n, d].
            right: [n, M], 1 or 0, NaN where not observed.
            order: [M], the first of these members that is right is the one whose confidence is foretold; queries at
                which nobody is are left out.
        """
        told = confidences.scores(x)
        ordered = np.nan_to_num(right[:, order]) == 1
        some = ordered.any(axis=1)
        first = order[ordered.argmax(axis=1)]
        wanted = told[np.arange(len(x)), first][:, None]
        return cls(confidences, Ridge.fit(told[some], wanted[some], _PENALTY))

    def scores(self, x: Floats) -> Floats:
        told = self.confidences.scores(x)
        return -np.abs(told - self.regression.scores(told))

    def widen(self, x: Floats, quality: Floats) -> Foretold:
        """The newcomer is held against the confidence that the others' foretell; its own foretells nothing."""
        weights = np.insert(self.regression.weights, -1, 0.0, axis=0)
        return Foretold(self.confidences.widen(x, quality), replace(self.regression, weights=weights))

    def learn(self, outcome: Outcome) -> None:
        if self.confidences.learns:
            self.confidences.learn(outcome)
