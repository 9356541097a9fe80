"""Linear weights of a member that comes after the fit, from few outcomes: the likeliest ones, where members' weights
are drawn around their mean as those of the known members are spread.

Half of that spread is taken as the known weights vary together, half as if each number were apart: a newcomer is mostly
like the others, and may be like none of them. Knows nothing of heads.
"""

from __future__ import annotations

import numpy as np

from ensemble.before.solvers.convex import sigmoid
from ensemble.outcomes.dense import Floats

_ODD = 0.1
"""Variance of an outcome that no weights explain."""
LEAST_SLOPE, LEAST_LEVEL = 0.016, 0.32
"""Least variances of a weight and of the constant, of log-odds: members that agree tell little of one more."""
_MILD = 1 / 16
"""What variances of scores are to those of log-odds: a logit moves a score by a quarter at most."""
_STEPS, _CLOSE = 50, 1e-9
"""Newton's steps at most, and the change that is none."""


def by_squares(weights: Floats, x: Floats, quality: Floats) -> Floats:
    """Weights [d + 1] of a score that is linear.

    Args:
        weights: [d + 1, M], of the known members; the last row is the constant.
        x: [k, d], queries that the newcomer has answered, k ≥ 0.
        quality: [k].
    """
    mean, rows = weights.mean(axis=1), _rows(weights, x)
    related = _related(weights, rows, _MILD)
    away = np.linalg.solve(related @ rows.T + _ODD * np.eye(len(rows)), quality - rows @ mean)
    return np.asarray(mean + related.T @ away)


def by_odds(weights: Floats, x: Floats, quality: Floats, offset: Floats | float = 0.0) -> Floats:
    """The same of a score whose log-odds are linear: the mode, by Newton's method on the k outcomes.

    Args:
        offset: [k], log-odds that come on top.
    """
    mean, rows = weights.mean(axis=1), _rows(weights, x)
    related = _related(weights, rows, 1.0)
    kernel, expected = related @ rows.T, rows @ mean + offset
    away: Floats = np.zeros(len(rows))
    for _ in range(_STEPS):
        moved = kernel @ away
        told = sigmoid(expected + moved)
        unsure = 1 / np.maximum(told * (1 - told), 1e-6)
        before, away = away, np.linalg.solve(kernel + np.diag(unsure), moved + unsure * (quality - told))
        if np.abs(away - before).max(initial=0.0) < _CLOSE:
            break
    return np.asarray(mean + related.T @ away)


def _rows(weights: Floats, x: Floats) -> Floats:
    """[k, d + 1], with the constant."""
    return np.pad(np.asarray(x, float).reshape(-1, len(weights) - 1), ((0, 0), (0, 1)), constant_values=1.0)


def _related(weights: Floats, rows: Floats, scale: float) -> Floats:
    """[k, d + 1], rows times the covariance of members' weights.

    Args:
        scale: of the least variances.
    """
    away = weights - weights.mean(axis=1, keepdims=True)
    slope, level = ((away[part] ** 2).mean() for part in (slice(-1), slice(-1, None)))
    apart = np.full(len(away), max(slope, scale * LEAST_SLOPE))
    apart[-1] = max(level, scale * LEAST_LEVEL)
    return np.asarray((rows @ away @ away.T / away.shape[1] + rows * apart) / 2)
