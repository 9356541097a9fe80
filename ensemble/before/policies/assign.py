"""A batch of queries under one budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from ensemble.before.policies.policy import Choice, Policy, Prediction, barred
from ensemble.errors import ConfigurationError
from ensemble.outcomes.dense import Bools, Floats, Ints

_STEPS = 100
"""Of bisection: more than a double can tell apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Who answers each query of a batch."""

    chosen: Ints
    """[n], members; -1: nobody."""
    value: float
    """Sum of the expected quality, less the penalties for what nobody answers."""
    cost: float
    """Expected, of all."""
    bound: float
    """No assignment within the budget is worth more."""
    price: float
    """Quality for money at which the budget is just met: the choice is the highest quality - price × cost."""


def assign(
    prediction: Prediction, budget: float, allowed: Bools | None = None, penalty: float = 0.0, exact: bool = False
) -> Assignment:
    """The largest sum of expected quality whose expected cost is within the budget (FORC, arXiv 2308.06077).

    By Lagrangian: a price of money found by bisection, then dearer choices for single queries while they fit; the gap
    to the best assignment is one query's quality at most.

    Args:
        budget: money for the whole batch, at least 0.
        allowed: [n, M]; omitted: everybody.
        penalty: quality lost with a query that nobody answers.
        exact: the best assignment, by SciPy's integer programme; seconds for thousands of queries.

    Raises:
        ConfigurationError: the budget is negative or not a number.
    """
    if not budget >= 0:
        raise ConfigurationError(f"the budget is {budget}; allowed: 0 and more", param="budget")
    value, cost = _with_nobody(prediction, allowed, penalty)
    found = _lagrangian(value, cost, budget)
    if exact:
        found = replace(found, **_totals(value, cost, _solved(value, cost, budget)))  # type: ignore[arg-type]
    nobody = value.shape[1] - 1
    return replace(found, chosen=np.where(found.chosen == nobody, -1, found.chosen))


def _with_nobody(prediction: Prediction, allowed: Bools | None, penalty: float) -> tuple[Floats, Floats]:
    """[n, M + 1] each; nobody comes last and costs nothing."""
    count = len(prediction.quality)
    everyone = np.ones(prediction.quality.shape, bool) if allowed is None else allowed
    value = np.column_stack([barred(prediction.quality.astype(float), everyone), np.full(count, -penalty)])
    return value, np.column_stack([np.where(everyone, prediction.cost, 0.0), np.zeros(count)])


def _lagrangian(value: Floats, cost: Floats, budget: float) -> Assignment:
    free, spent = _at(value, cost, 0.0)
    if spent <= budget:
        totals = _totals(value, cost, free)
        return Assignment(**totals, bound=float(totals["value"]), price=0.0)  # type: ignore[arg-type]
    low, high = 0.0, _dearest_price(value, cost)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _at(value, cost, middle)[1] <= budget else (middle, high)
    chosen = _filled(value, cost, _at(value, cost, high)[0], _at(value, cost, low)[0], budget)
    bound = float((value - high * cost).max(axis=1).sum() + high * budget)
    return Assignment(**_totals(value, cost, chosen), bound=bound, price=high)  # type: ignore[arg-type]


def _dearest_price(value: Floats, cost: Floats) -> float:
    """At which nobody answers who costs anything, or only the cheapest do."""
    # Nobody costs nothing, so that the least difference is never above the least cost.
    least = np.diff(np.unique(cost)).min()
    return float((np.ptp(value[np.isfinite(value)]) + 1) / max(least, 1e-30))


def _at(value: Floats, cost: Floats, price: float) -> tuple[Ints, float]:
    """Choices at a price, equal ones to the cheaper, and what they cost."""
    scores = value - price * cost
    chosen = np.where(scores == scores.max(axis=1, keepdims=True), cost, np.inf).argmin(axis=1)
    return chosen, float(cost[np.arange(len(cost)), chosen].sum())


def _filled(value: Floats, cost: Floats, within: Ints, beyond: Ints, budget: float) -> Ints:
    """Choices within the budget, of which some become those beyond it while there is money, the most valued first."""
    rows = np.arange(len(value))
    gain = value[rows, beyond] - value[rows, within]
    extra = cost[rows, beyond] - cost[rows, within]
    left = budget - cost[rows, within].sum()
    chosen = within.copy()
    for row in np.argsort(-gain, kind="stable"):
        if gain[row] > 0 and extra[row] <= left:
            chosen[row], left = beyond[row], left - extra[row]
    return chosen


def _totals(value: Floats, cost: Floats, chosen: Ints) -> dict[str, object]:
    rows = np.arange(len(value))
    return {
        "chosen": chosen,
        "value": float(value[rows, chosen].sum()),
        "cost": float(cost[rows, chosen].sum()),
    }


def _solved(value: Floats, cost: Floats, budget: float) -> Ints:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import identity, kron

    count, width = value.shape
    able = np.isfinite(value).ravel()
    one_each = LinearConstraint(kron(identity(count), np.ones((1, width)), format="csr"), 1, 1)
    paid = LinearConstraint(cost.reshape(1, -1), -np.inf, budget)
    result = milp(
        -np.where(able, value.ravel(), 0.0),
        integrality=np.ones(count * width),
        bounds=Bounds(0, able.astype(float)),
        constraints=[one_each, paid],
    )
    return np.asarray(np.reshape(result.x, (count, width)).argmax(axis=1))


class Assign(Policy):
    """The highest sum of quality over the queries that are decided at once, within a budget for each of them.

    A query that is decided alone gets the best answer that the budget pays. What the budget cannot pay goes to the
    cheapest, as somebody has to answer.
    """

    kind: Literal["assign"] = "assign"
    budget: float = Field(ge=0, allow_inf_nan=False)
    """Money for a query, on average over those decided at once."""
    exact: bool = False
    """The best assignment, by an integer programme, instead of one that misses it by one query's quality at most.
    Omitted: no."""

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        # Whoever costs least always answers, so the budget that is shared out is what goes beyond that.
        cost = np.where(allowed, prediction.cost, np.inf)
        floor = cost.min(axis=1, keepdims=True)
        beyond = replace(prediction, cost=np.where(allowed, prediction.cost - floor, 0.0))
        left = max(0.0, self.budget * len(cost) - float(floor.sum()))
        worse = 1 - float(prediction.quality.min(initial=0))
        found = assign(beyond, left, allowed, penalty=worse, exact=self.exact)
        return Choice(barred(prediction.quality, allowed), found.chosen, np.ones(len(cost)))
