"""Curves of predictions: every price of money is a choice, and every choice a point of cost and quality.

Knows nothing of what made the predictions.
"""

from __future__ import annotations

import numpy as np

from ensemble.outcomes.curves import Point
from ensemble.outcomes.dense import Dense, Floats, Ints
from ensemble.outcomes.references import taken

STEPS = 61
"""Prices between the one that nobody pays and the one that leaves nothing but the cheapest."""
_SPAN = 1e4


def prices(quality: Floats, cost: Floats) -> Floats:
    """[p], prices of a sweep, ascending from 0: on a log scale around the one at which predicted differences
    in quality and in cost weigh the same.

    Args:
        quality, cost: [n, M], predicted.
    """
    gap, apart = np.ptp(quality, axis=1).mean(), np.ptp(cost, axis=1).mean()
    if not (gap > 0 and apart > 0):
        return np.zeros(1)
    return np.concatenate([[0.0], gap / apart * np.geomspace(1 / _SPAN, _SPAN, STEPS)])


def choices(quality: Floats, cost: Floats, price: float) -> Ints:
    """[n], who has the highest predicted quality − price × cost; the cheapest of equals."""
    utility = quality - price * cost
    best = utility == utility.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, cost, np.inf).argmin(axis=1))


def sweep(quality: Floats, cost: Floats, table: Dense) -> list[Point]:
    """A point for each price, in their order.

    Args:
        quality, cost: [n, M], predicted.
        table: what came of it; complete, with costs.
    """
    return [taken("", table, choices(quality, cost, price)).point for price in prices(quality, cost)]


def oracle_sweep(table: Dense) -> list[Point]:
    """The same for who knows every outcome: the bound of all curves."""
    return sweep(table.quality, table.cost, table)
