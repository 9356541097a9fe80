"""Laws of reducing step rewards."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.judges.rewards import Reduction, reduced

rewards = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@pytest.mark.parametrize("by", get_args(Reduction))
@given(reward=st.floats(0, 1))
def test_one_step_is_the_solution(by: Reduction, reward: float) -> None:
    assert reduced([reward], by) == reward


@given(rewards)
def test_reductions_are_ordered(steps: list[float]) -> None:
    product, least, mean = (reduced(steps, by) for by in ("product", "min", "mean"))
    assert 0 <= product <= least <= mean + 1e-12 and mean <= max(steps) + 1e-12


@given(rewards)
def test_last_forgets_the_rest(steps: list[float]) -> None:
    assert reduced(steps, "last") == reduced([0.0, *steps], "last") == steps[-1]
