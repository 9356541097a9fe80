"""What chance alone does to a mean: the percentile bootstrap.

Functions over arrays; knows nothing of what they hold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95
LEAST = 6
"""Differences that are not 0 from which on a sign is shown at ``LEVEL``: six on one side are chance in one of 32 cases,
five in one of 16."""
_BLOCK = 1 << 22
"""Counts drawn at once: bounds memory, not results."""

Floats = npt.NDArray[np.float64]


def interval(values: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: ends of the middle 95 % of the means of resampled values.

    Args:
        values: shape [n], one for each question.
    """
    low, high = np.quantile(means(values, resamples=resamples, seed=seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def apart(differences: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean difference of two systems, that is a question is drawn for both. It reaches to 0 where
    fewer than ``LEAST`` questions tell the two apart: resamples of a few that all point one way do so as well.

    >>> apart(np.array([1.0])), apart(np.ones(6))
    ((0.0, 1.0), (1.0, 1.0))

    Args:
        differences: shape [n], one for each question.
    """
    low, high = interval(differences, resamples=resamples, seed=seed)
    return (low, high) if np.count_nonzero(differences) >= LEAST else (min(low, 0.0), max(high, 0.0))


def means(values: Floats, *, resamples: int, seed: int) -> Floats:
    """Shape [resamples]: the mean of n values drawn with replacement, for each resample.

    How often each different value is drawn is multinomial, so these counts are drawn instead of single values: right
    and wrong are two, their differences three, however many questions there are.
    """
    different, counts = np.unique(values, return_counts=True)
    random, shares = np.random.default_rng(seed), counts / len(values)
    block = max(1, _BLOCK // len(different))
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    drawn = [random.multinomial(len(values), shares, size) @ different for size in sizes]
    return np.asarray(np.concatenate(drawn) / len(values), np.float64)
