"""The evaluator: what a cheap judge's score is worth beside what was expected, learned on questions of known quality.

Pure functions of arrays; knows nothing of who judges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats


class Estimate(NamedTuple):
    """Expected quality and how sure it is."""

    mean: Floats
    variance: Floats


class Evaluator(NamedTuple):
    """A judge's bias and noise."""

    bias: float
    """Mean of its score less the quality."""
    variance: float
    """Of that difference; 0: the judge is always right but for its bias."""

    @classmethod
    def fit(cls, judged: Floats, quality: Floats) -> Evaluator:
        """
        Args:
            judged: [n], scores of the judge; NaN where it gave none.
            quality: [n], the truth; NaN where it is not known.

        Raises:
            BadRequest: fewer than two answers have both.
        """
        gap = judged - quality
        gap = gap[~np.isnan(gap)]
        if len(gap) < 2:
            raise BadRequest(f"a judge's noise needs two answers of known quality that it judged; there are {len(gap)}")
        return cls(float(gap.mean()), float(gap.var(ddof=1)))

    def combined(self, expected: Estimate, judged: Floats) -> Estimate:
        """What was expected and what the judge says, each weighed by 1 ÷ variance; NaN: the judge says nothing.

        >>> found = Evaluator(0.0, 0.01).combined(Estimate(np.array([0.7]), np.array([0.04])), np.array([0.9]))
        >>> found.mean.round(6).tolist(), found.variance.round(6).tolist()
        ([0.86], [0.008])
        """
        # A judge without noise is trusted fully, also where nothing is left to be learned.
        trust = expected.variance / (expected.variance + self.variance) if self.variance else np.ones_like(judged)
        trust = np.where(np.isnan(judged), 0.0, trust)
        mean = expected.mean + trust * (np.nan_to_num(judged) - self.bias - expected.mean)
        return Estimate(np.asarray(mean), np.asarray((1 - trust) * expected.variance))
