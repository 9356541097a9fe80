"""The acquisition: which cells of an outcome table to have answered next, so that the recommendation gains most.

Pure functions of arrays; nobody is asked here.
"""

from __future__ import annotations

import numpy as np

from ensemble.before.heads.head import Head
from ensemble.outcomes.dense import Bools, Floats, Ints

_ALIKE = 0.98
"""Cosine from which on two queries tell the same."""


def select_cells(
    head: Head, x: Floats, observed: Bools, budget: int, width: float = 1.0, alike: float = _ALIKE
) -> Ints:
    """[b, 2], cells (query, member) with the largest possible regret, b ≤ budget; none is observed already.

    What a query's best member may reach less what its second best is expected to: the cell that is worth knowing is
    of the member with the highest upper bound, and of the best other one. Of queries that are alike one is taken, until
    only such are left.

    Args:
        head: that knows the spread of its scores.
        x: [n, d], unit rows.
        observed: [n, M].
        width: standard deviations of an upper bound.
        alike: cosine from which on two queries are alike.

    Raises:
        ValueError: the head does not know its spread.
    """
    gain = gains(head, x, observed, width)
    rows, members = np.unravel_index(np.argsort(-gain, axis=None, kind="stable"), gain.shape)
    open_to = gain[rows, members] > -np.inf
    cells = np.stack([rows[open_to], members[open_to]], axis=1)
    fresh = _fresh(cells, x, budget, alike)
    later = np.setdiff1d(np.arange(len(cells)), fresh)
    order = np.concatenate([fresh, later]).astype(int)[:budget]
    return np.asarray(cells[order])


def gains(head: Head, x: Floats, observed: Bools, width: float = 1.0) -> Floats:
    """[n, M], by how much a cell's upper bound exceeds what the best other member is expected to reach, or, of the best
    member, the best other bound its lower one; minus infinity where it is observed."""
    mean, spread = head.scores(x), head.spread(x)
    if spread is None:
        raise ValueError(f"heads of kind {head.kind} do not know how sure they are")
    best = mean.argmax(axis=1)
    rows = np.arange(len(mean))
    upper = mean + width * spread
    others = upper.copy()
    others[rows, best] = -np.inf
    gain = upper - mean.max(axis=1, keepdims=True)
    if mean.shape[1] > 1:
        gain[rows, best] = others.max(axis=1) - (mean - width * spread)[rows, best]
    return np.where(observed, -np.inf, gain)


def _fresh(cells: Ints, x: Floats, budget: int, alike: float) -> Ints:
    """Places of the first cells of which no two of one member are of queries that are alike."""
    taken: list[int] = []
    asked: dict[int, list[int]] = {}
    for place, (row, member) in enumerate(cells.tolist()):
        if len(taken) >= budget:
            break
        before = asked.setdefault(member, [])
        if not before or float((x[before] @ x[row]).max()) < alike:
            taken.append(place)
            before.append(row)
    return np.array(taken, int)
