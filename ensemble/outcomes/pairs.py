"""Figures of a choice between two members, a strong one and a weak one: how quality grows with the strong one's share.

Functions over arrays; knows nothing of routers. Definitions are those of arXiv 2406.18665.
"""

from __future__ import annotations

import numpy as np

from ensemble.outcomes.dense import Floats

FRACTIONS = np.linspace(0, 1, 101)
"""Shares at which a curve is measured unless others are given."""
_LEAST = 1e-9
"""A strong member better by less than this is not better."""


def quality_by_share(strong: Floats, weak: Floats, score: Floats, shares: Floats = FRACTIONS) -> Floats:
    """a(f) [f]: mean quality when the share f of the queries with the highest scores goes to the strong member.

    Args:
        strong, weak: [n], quality of each.
        score: [n], higher where the strong one is needed more; equal ones go in order.
        shares: [f], 0 to 1.
    """
    order = np.argsort(-score, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    taken = np.round(np.asarray(shares) * len(score)).astype(int)
    return np.asarray((weak.sum() + gained[taken]) / len(score))


def recovered(quality: Floats) -> Floats:
    """PGR [f], the part of the gap between the two that is closed: (a(f) − a(0)) ÷ (a(1) − a(0)).

    Args:
        quality: [f], a(f) from f = 0 to f = 1.

    Returns:
        NaN where the strong member is not better than the weak one: there is no gap to close.
    """
    gap = quality[-1] - quality[0]
    return (quality - quality[0]) / gap if gap > _LEAST else np.full(len(quality), np.nan)


def mean_recovered(quality: Floats, shares: Floats = FRACTIONS) -> float:
    """APGR: area under PGR over the share of the strong member, trapezoid rule; chance gives 0.5.

    >>> round(mean_recovered(np.array([0.6, 0.75, 0.8]), np.array([0, 0.5, 1])), 6)
    0.625
    """
    return float(np.trapezoid(recovered(quality), shares))


def share_needed(quality: Floats, part: float, shares: Floats = FRACTIONS) -> float:
    """CPT: the least share of the strong member that closes a part of the gap, between points by a straight line.

    >>> [round(share_needed(np.array([0.6, 0.75, 0.8]), part, np.array([0, 0.5, 1])), 6) for part in (0.5, 0.8)]
    [0.333333, 0.6]
    """
    closed = recovered(quality)
    if np.isnan(closed).any():
        return float("nan")
    place = int(np.argmax(closed >= part - _LEAST))
    if place == 0:
        return float(shares[0]) if closed[0] >= part - _LEAST else float("nan")
    before, after = closed[place - 1], closed[place]
    return float(shares[place - 1] + (part - before) / (after - before) * (shares[place] - shares[place - 1]))


def drop(mixed: float, large: float) -> float:
    """Quality lost against asking the large member alone, as a share of its quality's size (arXiv 2404.14618)."""
    return (large - mixed) / abs(large) if large else float("nan")
