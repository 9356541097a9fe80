"""Targets: what a head is fitted to, made of the outcomes in a table.

Arrays are [n, M]. A hole stays a hole, or is filled with a mean where a function says so. Knows nothing of heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.outcomes.dense import Dense, Floats, Ints, mean_observed


def right(quality: Floats, threshold: float | None = 0.5) -> Floats:
    """1 where the quality is at least the threshold, else 0; of samples' means, whether most of them are right.

    Without a threshold the quality itself: a grade, or a share of right samples, says more than whether it is above.
    """
    if threshold is None:
        return quality
    return np.where(np.isnan(quality), np.nan, (quality >= threshold).astype(float))


def best(quality: Floats) -> Floats:
    """One unit for each row, shared equally by who did best; rows in which nobody scored above 0 are NaN.

    >>> best(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, np.nan]])).tolist()
    [[0.5, 0.5, 0.0], [nan, nan, nan]]
    """
    seen = ~np.isnan(quality)
    top = np.where(seen, quality, -np.inf).max(axis=1, keepdims=True)
    winners = seen & (quality == top) & (top > 0)
    total = winners.sum(axis=1, keepdims=True)
    return np.where(seen & (total > 0), winners / np.maximum(total, 1), np.nan)


def soft(quality: Floats, temperature: float) -> Floats:
    """Softmax of quality ÷ temperature over the observed members of each row; 0: ``best``, all-wrong rows shared too.

    Adding a constant to a row changes nothing.

    >>> soft(np.array([[0.82, 0.80, 0.60]]), 0.1).round(6).tolist()
    [[0.51826, 0.424315, 0.057425]]
    """
    seen = ~np.isnan(quality)
    known = np.where(seen, quality, -np.inf)
    top = np.where(seen.any(axis=1), known.max(axis=1), 0.0)[:, None]
    raised = np.exp((known - top) / temperature) if temperature > 0 else (known == top).astype(float)
    total = raised.sum(axis=1, keepdims=True)
    return np.where(seen, raised / np.where(total > 0, total, 1), np.nan)


def smoothed(quality: Floats, tags: Ints, beta: float) -> Floats:
    """beta × quality + (1 − beta) × the member's mean over the queries of the same tag; a hole takes that mean whole.

    A member that was observed nowhere in a tag has holes there still.

    Args:
        tags: [n], of 0 … K − 1.
        beta: 0 (all queries of a tag have one target) to 1 (the quality itself).
    """
    means = tag_means(quality, tags, int(tags.max(initial=-1)) + 1)[tags]
    return np.where(np.isnan(quality), means, beta * quality + (1 - beta) * means)


def tag_means(quality: Floats, tags: Ints, count: int) -> Floats:
    """[K, M], mean quality over the queries of each tag; NaN where nothing was observed."""
    means = [mean_observed(quality[tags == tag]) for tag in range(count)]
    return np.stack(means) if means else np.zeros((0, quality.shape[1]))


def reward(quality: Floats, cost: Floats, price: float, scale: float | None = None) -> Floats:
    """quality − price × cost ÷ scale; a hole where either is missing, unless the price is 0.

    Args:
        scale: money that counts as 1; omitted: the dearest member's mean cost.
    """
    if price == 0:
        return quality
    if scale is None:
        means = mean_observed(cost, empty=0.0)
        scale = float(means.max(initial=0.0)) or 1.0
    return np.asarray(quality - price * cost / scale)


def scale(quality: Floats) -> float:
    """Standard deviation of the observed qualities; 1 where they are all the same."""
    seen = quality[~np.isnan(quality)]
    return float(seen.std()) or 1.0 if len(seen) else 1.0


def gap(quality: Floats, strong: int, weak: int) -> Floats:
    """[n], by how much the strong member did better than the weak one; NaN where one of them was not observed."""
    return np.asarray(quality[:, strong] - quality[:, weak])


def numbered(tasks: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """[n] of 0 … K − 1, and the K tasks by name, sorted."""
    names, places = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
    return places, tuple(str(name) for name in names)


def has_tasks(table: Dense) -> bool:
    """Whether the table says of every query what kind it is."""
    return all(table.tasks)
