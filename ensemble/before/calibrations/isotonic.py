"""Isotonic regression: the best rising curve of the score, for each member."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.before.calibrations.calibration import Calibration
from ensemble.outcomes.dense import Floats


@dataclass
class Isotonic(Calibration, kind="isotonic"):
    """Straight lines between points; beyond the first and last the curve is level."""

    at: Floats
    """[M, P], scores, rising; the last is repeated where a member has fewer points."""
    quality: Floats
    """[M, P], not falling."""

    @classmethod
    def fit(cls, scores: Floats, quality: Floats) -> Isotonic:
        """
        Args:
            scores: [n, M], of queries that the head was not fitted to.
            quality: [n, M] in [0, 1], NaN where not observed; a member without any gets its scores, held to [0, 1].
        """
        curves = [_curve(scores[:, m], quality[:, m]) for m in range(quality.shape[1])]
        most = max(len(at) for at, _ in curves)
        padded = [[np.pad(side, (0, most - len(side)), mode="edge") for side in curve] for curve in curves]
        at, values = np.stack([np.stack(curve) for curve in padded], axis=1)
        return cls(at, values)

    def applied(self, scores: Floats) -> Floats:
        columns = [np.interp(scores[:, m], self.at[m], self.quality[m]) for m in range(len(self.at))]
        return np.stack(columns, axis=1)

    def widen(self) -> Isotonic:
        """The new member's scores stand as they are, held to [0, 1]."""
        line = np.ones(self.at.shape[1])
        line[0] = 0.0
        return Isotonic(np.vstack([self.at, line]), np.vstack([self.quality, line]))


def _curve(scores: Floats, quality: Floats) -> tuple[Floats, Floats]:
    from sklearn.isotonic import IsotonicRegression

    seen = ~np.isnan(quality)
    if not seen.any():
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    found = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores[seen].astype(float), quality[seen].astype(float))
    return np.asarray(found.X_thresholds_), np.asarray(found.y_thresholds_)
