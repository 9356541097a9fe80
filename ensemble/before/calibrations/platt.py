"""Platt scaling: a logistic curve of the score, for each member."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.before.calibrations.calibration import Calibration
from ensemble.before.solvers import convex
from ensemble.outcomes.dense import Floats

_EDGE = 1e-6
"""Scores are held this far from 0 and 1 before their logit is taken."""


@dataclass
class Platt(Calibration, kind="platt"):
    """Expected quality is σ(slope · score + shift); of probabilities, of their logits, so that it can leave them be."""

    slope: Floats
    """[M], not negative."""
    shift: Floats
    """[M]."""
    logit: bool = True
    """Whether scores are probabilities."""

    @classmethod
    def fit(cls, scores: Floats, quality: Floats, *, logit: bool = True, penalty: float = 1.0) -> Platt:
        """
        Args:
            scores: [n, M], of queries that the head was not fitted to.
            quality: [n, M] in [0, 1], NaN where not observed.
            penalty: draws slopes to 1, of cross entropy + penalty ÷ 2 · (slope − 1)².
        """
        given = _given(scores, logit)
        start = np.array([[1.0], [0.0]])
        ones = np.ones((len(given), 1))
        found = [
            convex.logistic(given[:, [m]], quality[:, [m]], penalty, ones, start)[:, 0] for m in range(quality.shape[1])
        ]
        slope, shift = np.stack(found, axis=1)
        # A slope below 0 would turn the order around: such scores say nothing, and the mean is all that is left.
        mean = np.clip(np.nan_to_num([_mean(column) for column in quality.T], nan=0.5), _EDGE, 1 - _EDGE)
        return cls(np.maximum(slope, 0), np.where(slope < 0, np.log(mean / (1 - mean)), shift), logit)

    def applied(self, scores: Floats) -> Floats:
        return convex.sigmoid(self.slope * _given(scores, self.logit) + self.shift)

    def widen(self) -> Platt:
        """The new member's scores are taken as the others' are on average; its probabilities as they are: they say
        least of a member of few outcomes, whereas the others' have to be put right by how good each one is."""
        slope, shift = (1.0, 0.0) if self.logit else (self.slope.mean(), self.shift.mean())
        return Platt(np.append(self.slope, slope), np.append(self.shift, shift), self.logit)


def _given(scores: Floats, logit: bool) -> Floats:
    if not logit:
        return scores
    held = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(held / (1 - held)))


def _mean(column: Floats) -> float:
    seen = column[~np.isnan(column)]
    return float(seen.mean()) if len(seen) else float("nan")
