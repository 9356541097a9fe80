"""A simulation of buying outcomes: cells of a full table are hidden, and some are uncovered round by round.

Says what a way of choosing cells is worth at a budget, against cells drawn at random.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from ensemble.before.fitting.training import Training
from ensemble.before.recommending.acquisition import select_cells
from ensemble.before.relm import recommender
from ensemble.outcomes.dense import Bools, Ints

Way = Literal["regret", "random"]


def uncovered(
    training: Training, budget: int, *, start: int, rounds: int, penalty: float, way: Way = "regret"
) -> Bools:
    """[n, M], cells that are known when the budget is spent.

    Args:
        budget: cells in all; with all that were observed the whole table is known.
        start: cells drawn at random before anything is known; they count.
        rounds: fits between purchases.
        way: by possible regret, or at random.
    """
    random = np.random.default_rng([training.seed, 19])
    observed = training.table.observed
    budget = min(budget, int(observed.sum()))
    seen = np.zeros_like(observed)
    _uncover(seen, _drawn(observed, min(start, budget), random))
    for left in range(rounds, 0, -1):
        count = -(-(budget - int(seen.sum())) // left)
        closed = seen | ~observed
        if way == "random":
            _uncover(seen, _drawn(~closed, count, random))
            continue
        table = replace(training.table, quality=np.where(seen, training.table.quality, np.nan))
        _uncover(seen, select_cells(recommender(training.x, table, penalty), training.x, closed, count))
    return seen


def reached(training: Training, seen: Bools, held: Training, penalty: float) -> float:
    """Mean quality on other queries of who is recommended by the cells that are known."""
    table = replace(training.table, quality=np.where(seen, training.table.quality, np.nan))
    chosen = recommender(training.x, table, penalty).scores(held.x).argmax(axis=1)
    return float(np.nanmean(held.table.quality[np.arange(len(chosen)), chosen]))


def _drawn(open_to: Bools, count: int, random: np.random.Generator) -> Ints:
    cells = np.argwhere(open_to)
    return np.asarray(cells[random.permutation(len(cells))[:count]])


def _uncover(seen: Bools, cells: Ints) -> None:
    seen[cells[:, 0], cells[:, 1]] = True
