"""Normal distributions side by side: which of several independent values is the largest."""

from __future__ import annotations

import math

import numpy as np

from ensemble.outcomes.dense import Bools, Floats, Ints

_REACH, _STEPS = 6.0, 97
"""Of the grid that is summed over, in standard deviations and points."""
_erf = np.vectorize(math.erf, otypes=[float])


def probability_largest(mean: Floats, std: Floats, allowed: Bools, chosen: Ints) -> Floats:
    """[n], probability that the chosen one's value is the largest among the allowed.

    Args:
        mean: [n, M].
        std: [n, M], not negative; 0: the value is its mean.
        chosen: [n].
    """
    rows = np.arange(len(mean))
    grid = np.linspace(-_REACH, _REACH, _STEPS)
    density = np.exp(-(grid**2) / 2)
    centre, width = mean[rows, chosen], np.maximum(std[rows, chosen], 1e-12)
    # [n, points, M]: how likely another's value is below the point.
    points = centre[:, None] + width[:, None] * grid
    away = (points[:, :, None] - mean[:, None, :]) / np.maximum(std[:, None, :], 1e-12)
    below = 0.5 * (1 + _erf(np.clip(away, -40, 40) / math.sqrt(2)))
    others = allowed.copy()
    others[rows, chosen] = False
    wins = np.where(others[:, None, :], below, 1.0).prod(axis=2)
    return np.asarray((wins * density).sum(axis=1) / density.sum())
