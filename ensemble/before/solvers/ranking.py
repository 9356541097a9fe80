"""A linear head that is held to the order of the members as well as to their qualities."""

from __future__ import annotations

import numpy as np

from ensemble.before.heads.linear import Ridge
from ensemble.before.solvers import convex
from ensemble.outcomes.dense import Floats


def ranked(x: Floats, quality: Floats, start: Ridge, penalty: float, weight: float, margin: float) -> Ridge:
    """Least Σ (quality − score)² + weight · Σ over pairs of max(0, margin − (better − worse))² + penalty · |w|².

    Pairs are the best member of a query (the mean of the scores, where several did best), and each that did worse
    there; only observed members are in any.

    Args:
        x: [n, d].
        quality: [n, M], NaN where not observed.
        start: where the search begins: a head of these members.
        margin: by how much the best member is to score above; a difference of quality that is less takes its place.
    """

    def loss(logits: Floats, rows: slice) -> tuple[float, Floats]:
        seen = ~np.isnan(quality[rows])
        error = np.where(seen, logits - np.nan_to_num(quality[rows]), 0.0)
        hinge, slope = hinged(logits, quality[rows], margin)
        return float((error**2).sum() + weight * hinge), 2 * error + weight * slope

    return Ridge(convex.descend(loss, x, 2 * penalty, start.weights, np.zeros_like(start.weights)), start.rate)


def hinged(scores: Floats, quality: Floats, margin: float) -> tuple[float, Floats]:
    """Sum of the squared hinges of queries [n, M], and its derivative by the scores."""
    seen = ~np.isnan(quality)
    known = np.where(seen, quality, -np.inf)
    top = known.max(axis=1, keepdims=True)
    lead = np.where(seen, top, 0.0) - np.nan_to_num(quality)
    worse, best = seen & (lead > 0), seen & (lead == 0)
    share = best / np.maximum(best.sum(axis=1, keepdims=True), 1)
    ahead = (share * scores).sum(axis=1, keepdims=True) - scores
    short = np.where(worse, np.maximum(0, np.minimum(margin, lead) - ahead), 0.0)
    return float((short**2).sum()), 2 * (short - share * short.sum(axis=1, keepdims=True))
