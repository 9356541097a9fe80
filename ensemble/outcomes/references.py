"""What every comparison is held against: single members, chance, and the oracles; and what choices give on a table.

Knows nothing of routers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ensemble.outcomes.curves import Point
from ensemble.outcomes.dense import Dense, Floats, Ints

SINGLE, CHANCE, CHEAPEST, TASK, ORACLE = (
    "best single",
    "random",
    "cheapest single",
    "best of known task",
    "query oracle",
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Taken:
    """What one way of choosing gives on the queries of a table."""

    name: str
    quality: Floats
    """[n]."""
    cost: Floats
    """[n], money; NaN where the table does not say."""
    chosen: Ints | None = None
    """[n], positions of the members; ``None``: a mean over members."""

    @property
    def point(self) -> Point:
        """Mean cost and quality."""
        return Point(float(self.cost.mean()), float(self.quality.mean()))


def taken(name: str, table: Dense, chosen: Ints) -> Taken:
    """
    Args:
        chosen: [n], positions; every chosen cell must be observed.
    """
    rows = np.arange(len(table))
    return Taken(name=name, quality=table.quality[rows, chosen], cost=table.cost[rows, chosen], chosen=chosen)


def references(fit: Dense, test: Dense) -> list[Taken]:
    """Best single member, chance, the cheapest, the best member of each known task, the query oracle.

    The best single member, the cheapest and the best of a task are picked on the part that was fitted to: picked on the
    test part they would be bounds that nobody can choose. A task that is not in that part has the best single member.
    Without tasks, or without costs, what needs them is left out. Oracles that tie take the cheapest.

    Args:
        test: complete, see ``Dense.complete``.
    """
    return list(_references(fit, test))


def _references(fit: Dense, test: Dense) -> Iterator[Taken]:
    yield taken(SINGLE, test, np.full(len(test), fit.best))
    yield Taken(name=CHANCE, quality=test.quality.mean(axis=1), cost=test.cost.mean(axis=1))
    costs = mean_costs(fit)
    if not np.isnan(costs).any():
        yield taken(CHEAPEST, test, np.full(len(test), int(costs.argmin())))
    if len(set(test.tasks)) > 1:
        yield taken(TASK, test, by_task(fit, test))
    yield taken(ORACLE, test, oracle(test))


def mean_costs(table: Dense) -> Floats:
    """[M], mean cost over what was observed; NaN where the table does not say."""
    seen = ~np.isnan(table.cost)
    count = seen.sum(axis=0)
    return np.where(count > 0, np.nansum(table.cost, axis=0) / np.maximum(count, 1), np.nan)


def by_task(fit: Dense, test: Dense) -> Ints:
    """[n], the best member of each query's task."""
    of_fit = np.array(fit.tasks)
    best = {task: fit.rows(of_fit == task).best for task in set(fit.tasks)}
    return np.array([best.get(task, fit.best) for task in test.tasks])


def oracle(table: Dense, price: float = 0.0) -> Ints:
    """[n], who has the highest quality − price × cost of each query, the cheapest of equals; without costs the first.

    Args:
        price: quality that a unit of money is worth.
    """
    cost = np.nan_to_num(table.cost)
    utility = np.where(table.observed, table.quality - price * cost, -np.inf)
    best = utility == utility.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, cost, np.inf).argmin(axis=1))


def singles(table: Dense) -> list[Point]:
    """Each member alone: the curve of the zero router, which needs to know nothing of a query (arXiv 2403.12031)."""
    return [taken(name, table, np.full(len(table), m)).point for m, name in enumerate(table.members)]
