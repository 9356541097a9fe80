"""Verdicts: whether a strong member beats each other one, ties with it or loses, by a classifier of three labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head
from ensemble.before.routing.parts import NeedsFit
from ensemble.outcomes.dense import Floats

LOSS, TIE = 0, 1
"""Labels, of the strong member; the third is a win."""


@dataclass
class Verdicts(Head, kind="verdicts"):
    """Softmax over (strong loses, tie, strong wins) against each other member (classifier of arXiv 2406.18665).

    The strong member's score against another one is P(it wins) + tie · P(tie); that one's score is the rest, and the
    strong one's the least of its scores against the others. For two members: s and 1 - s.
    """

    weights: Floats
    """[M, 3, d]; zeros for the strong member itself."""
    constants: Floats
    """[M, 3]."""
    strong: int
    """A member."""
    tie: float = 0.5
    """What of a tie counts for the strong member; 0, as in the paper: a member that ties is good enough."""

    probabilities: ClassVar[bool] = False

    def widen(self, x: Floats, quality: Floats) -> Verdicts:
        missing = "a verdict needs answers of the newcomer and of the strong member to the same query"
        others = "with another scorer: gap, mf and sw_ranking take one"
        raise NeedsFit(missing, instead=f"fit the router again with both in the table, or {others}")

    @classmethod
    def fit(cls, x: Floats, quality: Floats, strong: int, penalty: float, tie: float = 0.5) -> Verdicts:
        """
        Args:
            x: [n, d].
            quality: [n, M], NaN where not observed; rows count that hold the strong member and another one.
            penalty: of the squared weights.
            tie: see the field.
        """
        members = quality.shape[1]
        weights, constants = np.zeros((members, 3, x.shape[1])), np.zeros((members, 3))
        for m in range(members):
            if m != strong:
                weights[m], constants[m] = _classifier(x, quality[:, strong] - quality[:, m], penalty)
        return cls(weights, constants, strong, tie)

    def labels(self, x: Floats) -> Floats:
        """[n, M, 3], probabilities of the labels; nothing that means anything for the strong member itself."""
        logits = np.einsum("nd,mld->nml", x, self.weights, optimize=True) + self.constants
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        return np.asarray(odds / odds.sum(axis=2, keepdims=True))

    def scores(self, x: Floats) -> Floats:
        labels = self.labels(x)
        scores = labels[:, :, LOSS] + (1 - self.tie) * labels[:, :, TIE]
        others = [m for m in range(scores.shape[1]) if m != self.strong]
        scores[:, self.strong] = (1 - scores[:, others]).min(axis=1) if others else 1.0
        return scores


def _classifier(x: Floats, gap: Floats, penalty: float) -> tuple[Floats, Floats]:
    """[3, d] and [3] of one pair; a label that never came has next to no probability."""
    from sklearn.linear_model import LogisticRegression

    seen = ~np.isnan(gap)
    label = np.sign(gap[seen]).astype(int) + 1
    counts = np.bincount(label, minlength=3)
    weights, constants = np.zeros((3, x.shape[1])), np.log((counts + 1) / (counts.sum() + 3))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return weights, constants
    model = LogisticRegression(C=1 / penalty, max_iter=500).fit(x[seen], label)
    rows, shifts = model.coef_, model.intercept_
    if len(present) == 2:
        # Two labels make a model of one row, the log-odds of the second.
        rows, shifts = np.vstack([-rows / 2, rows / 2]), np.append(-shifts / 2, shifts / 2)
        constants += shifts.min() - constants.max() - np.log(counts.sum())
    weights[present], constants[present] = rows, shifts
    return weights, constants
