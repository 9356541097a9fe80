"""Linear weights of a member that comes after the fit, from few outcomes: the likeliest ones, where members' weights
are drawn around their mean as those of the known members are spread.

Half of that spread is taken as the known weights vary together, half as if each number were apart: a newcomer is mostly
like the others, and may be like none of them. How unlike it may be its own outcomes decide, each foretold from the
others. Knows nothing of heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ensemble.before.solvers.convex import sigmoid
from ensemble.outcomes.dense import Floats

_ODD = 0.1
"""Variance of an outcome that no weights explain."""
LEAST_SLOPE, LEAST_LEVEL = 0.016, 0.32
"""Least variances of a weight and of the constant, of log-odds: members that agree tell little of one more."""
_MILD = 1 / 16
"""What variances of scores are to those of log-odds: a logit moves a score by a quarter at most."""
_SCALES = (1.0, 4.0, 16.0, 64.0, 256.0)
"""What the variances of weights that are apart are multiplied by: one of these."""
_DOUBT, _BLIND = 1.0, 0.5
"""Standard errors by which weights more unlike the others' have to be better; and where without them nothing that the
others are not good at can be seen at all."""
_NOTHING = 1e-12
"""Variance of a weight that is to be nothing."""
_STEPS, _CLOSE = 50, 1e-9
"""Newton's steps at most, and the change that is none."""


class _Link(NamedTuple):
    """How outcomes follow from weighted sums."""

    lost: Callable[[Floats, Floats], Floats]
    """[k], less the log-likelihood of qualities [k] at sums [k], but for a constant."""
    slopes: Callable[[Floats, Floats], tuple[Floats, Floats]]
    """[k] and [k], by the sums: the log-likelihood's first derivative, and less its second."""


class _Found(NamedTuple):
    away: Floats
    """[D], weights less their mean."""
    lost: Floats
    """[k], of each outcome, foretold from the others."""


def by_squares(weights: Floats, x: Floats, quality: Floats) -> Floats:
    """Weights [d + 1] of a score that is linear.

    Args:
        weights: [d + 1, M], of the known members; the last row is the constant.
        x: [k, d], queries that the newcomer has answered, k ≥ 0.
        quality: [k].
    """
    return _likeliest(weights, x, quality, 0.0, _LINE, _MILD)


def by_odds(weights: Floats, x: Floats, quality: Floats, offset: Floats | float = 0.0) -> Floats:
    """The same of a score whose log-odds are linear.

    Args:
        offset: [k], log-odds that come on top.
    """
    return _likeliest(weights, x, quality, offset, _ODDS, 1.0)


def beside(told: Floats, spread: Floats, x: Floats, quality: Floats, known: Floats) -> tuple[Floats, Floats]:
    """Weights [r] of what another model is told of the queries, less their mean, and [d + 1] of the embeddings beside
    it: zeros where the outcomes foretell each other no better by these.

    Args:
        told: [k, r].
        spread: [r, r], covariance of its weights.
        x: [k, d].
        quality: [k].
        known: [k], log-odds at the mean of its weights.
    """
    rows = np.hstack([told, with_constant(x, x.shape[1])])
    whole = np.zeros((rows.shape[1], rows.shape[1]))
    whole[: len(spread), : len(spread)] = spread
    apart = np.arange(len(spread), len(whole))
    found = []
    for scale in (0.0, *_SCALES):
        whole[apart, apart] = max(scale * LEAST_SLOPE / 2, _NOTHING)
        found.append(_mode(whole, rows, quality, known, _ODDS))
    best = closest(found, _BLIND)
    away, own = best.away[: len(spread)], best.away[len(spread) :]
    return away, np.zeros(len(own)) if best is found[0] else own


def _likeliest(weights: Floats, x: Floats, quality: Floats, offset: Floats | float, link: _Link, mild: float) -> Floats:
    mean, rows = weights.mean(axis=1), with_constant(x, len(weights) - 1)
    known = rows @ mean + offset
    found = [_mode(_spread(weights, mild, scale), rows, quality, known, link) for scale in _SCALES]
    return np.asarray(mean + closest(found, _DOUBT).away)


def closest(found: Sequence[_Found], doubt: float) -> _Found:
    """The first that foretells its outcomes about as well as the best does: what is more unlike the others has to prove
    it."""
    best = min(found, key=lambda one: float(one.lost.sum()))
    count = max(len(best.lost), 1)
    for one in found:
        worse = one.lost - best.lost
        if worse.sum() / count <= doubt * np.sqrt((worse**2).sum()) / count:
            return one
    return best


def with_constant(x: Floats, size: int) -> Floats:
    """[k, d + 1]."""
    return np.pad(np.asarray(x, float).reshape(-1, size), ((0, 0), (0, 1)), constant_values=1.0)


def _spread(weights: Floats, mild: float, scale: float) -> Floats:
    """[d + 1, d + 1], covariance of members' weights.

    Args:
        mild: of the least variances.
        scale: of the variances of slopes, as if each were apart.
    """
    away = weights - weights.mean(axis=1, keepdims=True)
    slope, level = ((away[part] ** 2).mean() for part in (slice(-1), slice(-1, None)))
    apart = np.full(len(away), scale * max(slope, mild * LEAST_SLOPE))
    apart[-1] = max(level, mild * LEAST_LEVEL)
    return np.asarray((away @ away.T / away.shape[1] + np.diag(apart)) / 2)


def _mode(spread: Floats, rows: Floats, quality: Floats, known: Floats, link: _Link) -> _Found:
    """The mode by Newton's method.

    Args:
        spread: [D, D], covariance of the weights.
        rows: [k, D].
        known: [k], sums at the weights' mean.
    """
    factor = np.linalg.cholesky(spread)
    left, sizes, right = np.linalg.svd(rows @ factor, full_matrices=False)
    told = left * sizes
    at, sums, reached = np.zeros(len(sizes)), known, link.lost(known, quality).sum()
    for _ in range(_STEPS):
        slope, curve = link.slopes(sums, quality)
        step = np.linalg.solve(np.eye(len(at)) + (told.T * curve) @ told, told.T @ slope - at)
        while True:
            tried = at + step
            value = link.lost(known + told @ tried, quality).sum() + tried @ tried / 2
            if value <= reached or np.abs(step).max(initial=0.0) < _CLOSE:
                break
            step = step / 2
        at, sums, reached = tried, known + told @ tried, value
        if np.abs(step).max(initial=0.0) < _CLOSE:
            break
    return _Found(factor @ (right.T @ at), _left_out(told, sums, quality, link))


def _left_out(told: Floats, sums: Floats, quality: Floats, link: _Link) -> Floats:
    """[k], what is lost on each outcome at the mode without it: exact for lines, one Newton's step for odds."""
    slope, curve = link.slopes(sums, quality)
    hessian = np.eye(told.shape[1]) + (told.T * curve) @ told
    own = np.einsum("kr,rk->k", told, np.linalg.solve(hessian, told.T))
    return link.lost(sums - own * slope / np.maximum(1 - own * curve, 1e-6), quality)


def _line_slopes(sums: Floats, quality: Floats) -> tuple[Floats, Floats]:
    return (quality - sums) / _ODD, np.full(len(sums), 1 / _ODD)


def _odds_slopes(sums: Floats, quality: Floats) -> tuple[Floats, Floats]:
    told = sigmoid(sums)
    return quality - told, np.maximum(told * (1 - told), 1e-6)


_LINE = _Link(lambda sums, quality: (quality - sums) ** 2 / (2 * _ODD), _line_slopes)
_ODDS = _Link(lambda sums, quality: np.logaddexp(0, sums) - quality * sums, _odds_slopes)
