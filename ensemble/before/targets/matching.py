"""Labels of a match: how likely one member's answer is as good as another's, from samples of both.

Arrays of samples are [n, S], NaN where a query has fewer. Knows nothing of routers.
"""

from __future__ import annotations

import numpy as np

from ensemble.outcomes.dense import Dense, Floats, Ints

_GRID = 41
"""Tolerances that are tried."""


def samples_of(table: Dense, member: int) -> Floats:
    """[n, S], the single samples where the table has them, else the one quality of each cell."""
    if table.samples is None:
        return np.asarray(table.quality[:, member, None], float)
    samples = np.array(table.samples[:, member], float)
    alone = np.isnan(samples).all(axis=1)
    samples[alone, 0] = table.quality[alone, member]
    return samples


def matches(own: Floats, reference: Floats, tolerance: float = 0.0, best_of: int = 1, selector: float = 1.0) -> Floats:
    """[n], P(the best of some of the own samples ≥ one of the reference's - tolerance); NaN where one has no sample.

    The part of all pairs of samples where it is (arXiv 2404.14618), or of all draws of several own samples with one of
    the reference (arXiv 2506.22716); more samples than there are match as all of them do.

    Args:
        own: [n, S].
        reference: [n, R].
        best_of: samples of which the best one answers.
        selector: 1: the best is always found; 0: one is taken blindly; a straight line in between.
    """
    pairs = own[:, :, None] >= reference[:, None, :] - tolerance - 1e-12
    counts, there = (~np.isnan(own)).sum(axis=1), ~np.isnan(reference)
    poor = np.maximum(counts, 1)[:, None] - pairs.sum(axis=1)
    one = 1 - poor / np.maximum(counts, 1)[:, None]
    found = one + selector * (1 - _all_among(poor, counts[:, None], best_of) - one)
    total = np.where(there, found, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.where((counts > 0) & there.any(axis=1), total, np.nan)


def _all_among(some: Ints, counts: Ints, draws: int) -> Floats:
    """Probability that all of so many draws without replacement are among some of the counts."""
    odds = np.ones(some.shape)
    for drawn in range(draws):
        left = counts - drawn
        odds = np.where(left > 0, odds * np.maximum(some - drawn, 0) / np.maximum(left, 1), odds)
    return odds


def rated(own: Floats, reference: Floats, best_of: int = 1, selector: float = 1.0) -> Floats:
    """[n], the same where all that is known of both is how often they are right.

    Args:
        own: [n] in [0, 1].
        reference: [n] in [0, 1].
    """
    return np.asarray(1 - reference + reference * best(own, best_of, selector))


def best(rate: Floats, count: int, selector: float = 1.0) -> Floats:
    """How often the best of so many answers is right, of how often one is."""
    return np.asarray(rate + selector * (1 - (1 - rate) ** count - rate))


def unlike(labels: Floats) -> float:
    """Mean of |y_i - y_j| over all pairs of labels, each with itself too; 0 where they are constant."""
    known = np.sort(labels[~np.isnan(labels)])
    count = len(known)
    return float(2 * ((2 * np.arange(1, count + 1) - count - 1) @ known) / count**2) if count else 0.0


def tolerance_of(own: Floats, reference: Floats) -> float:
    """t* of Hybrid LLM: the tolerance that makes labels most unlike each other, the least of equals.

    Args:
        own: [n, S].
        reference: [n, R].
    """
    gaps = reference[:, None, :] - own[:, :, None]
    most = float(np.nanmax(gaps, initial=0.0)) if (~np.isnan(gaps)).any() else 0.0
    grid = np.linspace(0, max(most, 0.0), _GRID)
    return float(grid[int(np.argmax([unlike(matches(own, reference, t)) for t in grid]))])
