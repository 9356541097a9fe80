"""Strengths of competitors from their battles: Bradley-Terry by maximum likelihood, Elo steps, tiers.

Pure functions of arrays; knows nothing of queries or routers.
"""

from __future__ import annotations

import numpy as np

from ensemble.outcomes.dense import Floats, Ints

START = 1000.0
"""Rating of whom nobody has seen."""
SCALE = 400 / np.log(10)
"""Rating points of one unit of log-odds."""
_STEPS = 60
_LONGEST = 2.0
"""Of a Newton step, in log-odds: far from the solution a whole one may lead away from it."""


def bradley_terry(wins: Floats, pseudo: float = 0.0) -> Floats:
    """[…, T] strengths s, their mean 0, that make the battles likeliest: P(i beats j) = sigmoid(s_i - s_j).

    Newton's method on all problems at once. For two competitors this is ln(points of one ÷ points of the other).

    Args:
        wins: […, T, T], points that i took from j, weights included.
        pseudo: tied battles added to each pair. At 0 who never lost has no finite strength; a large one is given.
    """
    count = wins.shape[-1]
    points = wins.astype(float) + pseudo / 2 * (1 - np.eye(count))
    battles = points + np.swapaxes(points, -1, -2)
    # Strengths are known but for a constant; fixing their mean makes the Hessian invertible, the rest rounding.
    fixed = np.full((count, count), 1 / count) + 1e-9 * np.eye(count)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(_STEPS):
        p = won(strengths[..., :, None] - strengths[..., None, :])
        slope = (points - battles * p).sum(axis=-1)
        curve = battles * p * (1 - p)
        hessian = np.eye(count) * curve.sum(axis=-1, keepdims=True) - curve + fixed
        step = np.linalg.solve(hessian, slope[..., None])[..., 0]
        step = np.clip(step - step.mean(axis=-1, keepdims=True), -_LONGEST, _LONGEST)
        strengths = np.clip(strengths + step, -30, 30)
        if np.abs(step).max(initial=0.0) < 1e-12:
            break
    return np.asarray(strengths)


def won(gap: Floats) -> Floats:
    """Probability of winning at this gap of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(gap / 2)))


def rated(strengths: Floats) -> Floats:
    """Ratings around 1000, 400 points for odds of ten to one."""
    return np.asarray(START + SCALE * strengths)


def win_share(strengths: Floats) -> Floats:
    """[n, M], mean probability of each to beat one of the others; in the order of the strengths [n, M]."""
    count = strengths.shape[1]
    gaps = strengths[:, :, None] - strengths[:, None, :]
    return np.asarray((won(gaps).sum(axis=2) - 0.5) / max(1, count - 1)) if count > 1 else np.full_like(strengths, 0.5)


def elo_step(ratings: list[float], first: int, second: int, score: float, step: float) -> None:
    """Move two ratings by a battle, in place: R += K (S - E), E = 1 ÷ (1 + 10^((R_b - R_a) ÷ 400))."""
    move = step * (score - 1 / (1 + 10 ** ((ratings[second] - ratings[first]) / 400)))
    ratings[first] += move
    ratings[second] -= move


def tiers(ratings: Floats, count: int) -> Ints:
    """[M], the tier of each, 0 the weakest: the split of the sorted ratings with the least sum of variances.

    >>> tiers(np.array([1200.0, 900.0, 1210.0, 905.0]), 2).tolist()
    [1, 0, 1, 0]

    Args:
        count: tiers; with as many competitors or fewer each is one of its own.
    """
    order = np.argsort(ratings, kind="stable")
    places = np.arange(len(order)) if count >= len(order) else _split(ratings[order], count)
    found = np.empty(len(order), int)
    found[order] = places
    return found


def _split(values: Floats, count: int) -> Ints:
    """[M], the group of each of the sorted values; a dynamic programme over where the last group begins."""
    size = len(values)
    cost = np.full((count + 1, size + 1), np.inf)
    begins = np.zeros((count + 1, size + 1), int)
    cost[0, 0] = 0.0
    for group in range(1, count + 1):
        for end in range(group, size + 1):
            options = [cost[group - 1, begin] + values[begin:end].var() for begin in range(group - 1, end)]
            begins[group, end] = group - 1 + int(np.argmin(options))
            cost[group, end] = min(options)
    places, end = np.empty(size, int), size
    for group in range(count, 0, -1):
        places[begins[group, end] : end] = group - 1
        end = begins[group, end]
    return places
