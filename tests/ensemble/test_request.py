"""Budgets and usage are values: they add, and say what is left."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.errors import BadRequest, BudgetExceeded
from ensemble.request import Budget, Usage, total

AMOUNTS = st.integers(0, 10**6)
USAGES = st.builds(Usage, AMOUNTS, AMOUNTS, AMOUNTS, st.decimals(0, 1000, places=9))


@given(st.lists(USAGES, max_size=4), USAGES)
def test_usage_adds_exactly_and_in_any_order(usages: list[Usage], one: Usage) -> None:
    assert total([*usages, one]) == total([one, *reversed(usages)]) == total(usages) + one
    assert total(usages).total_tokens == sum(u.prompt_tokens + u.completion_tokens for u in usages)


@given(USAGES, USAGES, st.integers(1, 10**7), st.decimals("0.001", 10**4, places=3))
def test_what_is_left_after_two_is_what_is_left_after_their_sum(
    first: Usage, second: Usage, tokens: int, cost: Decimal
) -> None:
    budget = Budget(tokens=tokens, cost=cost, seconds=9.0)
    within = (first + second).total_tokens < tokens and (first + second).cost < cost
    if within:
        assert budget.after(first, 1.0).after(second, 2.0) == budget.after(first + second, 3.0)
    else:
        with pytest.raises(BudgetExceeded):
            budget.after(first, 1.0).after(second, 2.0)


@pytest.mark.parametrize(
    ("amount", "spent", "seconds"),
    [
        ({"calls": 1}, Usage(calls=1), 0.0),
        ({"tokens": 5}, Usage(prompt_tokens=2, completion_tokens=3), 0.0),
        ({"cost": Decimal("0.3")}, Usage(cost=Decimal("0.1") * 3), 0.0),
        ({"seconds": 3.0}, Usage(), 3.0),
        ({"seconds": 3.0, "waited": 2.5}, Usage(), 0.5),
    ],
)
def test_a_budget_that_is_used_up_says_of_what(amount: dict[str, Any], spent: Usage, seconds: float) -> None:
    with pytest.raises(BudgetExceeded) as error:
        Budget(**amount).after(spent, seconds)
    assert error.value.param == f"budget.{next(iter(amount))}"


def test_what_is_left_holds_no_wait_twice() -> None:
    assert Budget(seconds=3.0, waited=1.0).after(Usage(), 1.0) == Budget(seconds=1.0)


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-1", "0", "1e9999999", "1.1e15"])
def test_money_that_cannot_be_counted_is_refused(cost: str) -> None:
    with pytest.raises(BadRequest, match="above 0") as refused:
        Budget(cost=Decimal(cost))
    assert refused.value.param == "budget.cost"
