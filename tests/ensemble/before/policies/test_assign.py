"""A batch under a budget: the published example, and the laws of its optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.policies import Assign, Prediction, Utility
from ensemble.before.policies.assign import assign
from ensemble.before.policies.dual import DualPrice
from ensemble.errors import ConfigurationError

FORC = Prediction(np.array([[0.9, 0.95], [0.2, 0.8], [0.6, 0.65], [0.1, 0.3]]), np.tile([1.0, 10.0], (4, 1)))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("budget", "value", "upgraded"), [(4, 1.8, []), (13, 2.4, [1]), (22, 2.6, [1, 3]), (40, 2.7, [0, 1, 2, 3])]
)
def test_money_goes_where_it_gains_most(budget: float, value: float, upgraded: list[int], exact: bool) -> None:
    found = assign(FORC, budget, exact=exact)
    assert found.value == pytest.approx(value, abs=1e-6) and found.cost <= budget
    assert np.flatnonzero(found.chosen == 1).tolist() == upgraded


def test_value_for_money_of_the_upgrades() -> None:
    gains = (FORC.quality[:, 1] - FORC.quality[:, 0]) / 9
    assert gains == pytest.approx([0.005556, 0.066667, 0.005556, 0.022222], abs=1e-6)
    assert assign(FORC, 13).price == pytest.approx(gains[3], abs=1e-6), "the price is what the next upgrade brings"


def some(seed: int, n: int = 12, members: int = 3) -> Prediction:
    random = np.random.default_rng(seed)
    return Prediction(random.random((n, members)), random.random((n, members)) + 0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 8))
def test_rounded_is_below_exact_is_below_the_bound(seed: int, budget: float) -> None:
    prediction = some(seed)
    rounded, exact = assign(prediction, budget), assign(prediction, budget, exact=True)
    assert rounded.value <= exact.value + 1e-9 <= exact.bound + 2e-6
    assert rounded.cost <= budget + 1e-9 and exact.cost <= budget + 1e-6
    assert exact.bound - rounded.value <= prediction.quality.max() + 1e-9, "one query's quality at most"


@given(st.integers(0, 10_000), st.floats(0, 8), st.floats(0, 8))
def test_more_money_bounds_more(seed: int, one: float, other: float) -> None:
    low, high = (assign(some(seed), budget) for budget in sorted((one, other)))
    assert low.bound <= high.bound + 1e-9 and low.price >= high.price - 1e-9


def test_without_money_nobody_answers_and_with_enough_the_best_do() -> None:
    assert assign(FORC, 0).chosen.tolist() == [-1] * 4
    assert assign(FORC, np.inf).chosen.tolist() == [1, 1, 1, 1]
    free = Prediction(FORC.quality, FORC.cost * [0.0, 1.0])
    assert assign(free, 0).chosen.tolist() == [0] * 4


def test_a_penalty_is_paid_for_what_nobody_answers() -> None:
    found = assign(FORC, 2, penalty=0.5)
    assert found.chosen.tolist() == [0, -1, 0, -1] and found.value == pytest.approx(0.9 + 0.6 - 2 * 0.5)


def test_who_is_not_allowed_is_not_assigned() -> None:
    allowed = np.array([[True, False], [True, True], [False, False], [True, True]])
    for exact in (False, True):
        assert assign(FORC, 40, allowed, exact=exact).chosen.tolist() == [0, 1, -1, 1]


@pytest.mark.parametrize("budget", [-1, np.nan])
def test_a_budget_is_money(budget: float) -> None:
    with pytest.raises(ConfigurationError, match="allowed: 0 and more"):
        assign(FORC, budget)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("budget", "best"), [(0.0, [0, 0, 0, 0]), (1.0, [0, 0, 0, 0]), (3.25, [0, 1, 0, 0]), (10.0, [1, 1, 1, 1])]
)
def test_as_a_policy_somebody_always_answers(budget: float, best: list[int], exact: bool) -> None:
    choice = Assign(budget=budget, exact=exact).choose(FORC, np.ones((4, 2), bool), np.random.default_rng(0))
    assert choice.chosen.tolist() == best


def test_the_price_finds_the_budget_over_time() -> None:
    random, budget, spent = np.random.default_rng(0), 0.3, []
    price = DualPrice(budget=budget, rate=0.05)
    for _ in range(4000):
        cost = np.array([[0.1, 1.0]])
        prediction = Prediction(random.random((1, 2)), cost)
        choice = price.policy.choose(prediction, np.ones((1, 2), bool), random)
        spent.append(float(cost[0, choice.chosen[0]]))
        price = price.after(spent[-1])
    assert np.mean(spent[1000:]) == pytest.approx(budget, abs=0.01)
    assert price.policy == Utility(price=price.price)
