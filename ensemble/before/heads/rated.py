"""Rated: scores from a model that is asked, for each query, how good an answer of a member would be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head
from ensemble.outcomes.dense import Floats


@dataclass
class Rated(Head, kind="rated"):
    """A member's score is the probability that its answer is rated ``least`` at least; the strong one's is the
    smallest probability that another member's is not (causal scorer of arXiv 2406.18665).

    Without ratings the strong member stands above all others.
    """

    expected: Floats
    """[M], mean quality in what the head was fitted to."""
    strong: int
    """A member."""
    least: int = 4
    """Rating from which on an answer is good enough."""

    reads: ClassVar[bool] = False
    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        scores = np.zeros((len(x), len(self.expected)))
        scores[:, self.strong] = 1.0
        return scores

    def widen(self, x: Floats, quality: Floats) -> Rated:
        """Who rates answers is asked for the newcomer's as well; without outcomes it is a mean member."""
        mean = quality.mean() if len(quality) else self.expected.mean()
        return replace(self, expected=np.append(self.expected, mean))

    def rated(self, ratings: Floats) -> Floats:
        """[M], scores of one query.

        Args:
            ratings: [M, 5], probabilities of the ratings 1 to 5 of each member's answer; those of the strong one do not
                count.
        """
        scores = ratings[:, self.least - 1 :].sum(axis=1)
        others = np.arange(len(scores)) != self.strong
        scores[self.strong] = (1 - scores[others]).min(initial=1.0)
        return np.asarray(scores)
