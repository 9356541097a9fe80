"""Pools: greedy coverage is monotone, submodular, and starts from the best single member."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.before.fitting.pool import coverage, select_pool
from ensemble.errors import BadRequest

# Rows of the example are members, columns queries.
QUALITY = np.array([[1, 0, 0, 1, 0, 1], [1, 1, 0, 1, 0, 0], [0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1]], float).T
tables = arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=st.floats(0, 1))


def test_the_worked_example() -> None:
    assert select_pool(QUALITY, 3) == (0, 2, 1)
    found = [coverage(QUALITY, select_pool(QUALITY, k)) for k in (1, 2, 3)]
    assert [round(c, 6) for c in found] == [0.5, 0.833333, 1.0]


@given(tables)
def test_coverage_rises_ever_less_from_the_best_single_to_the_oracle(quality: np.ndarray) -> None:
    pool = select_pool(quality, quality.shape[1])
    steps = [coverage(quality, pool[:k]) for k in range(len(pool) + 1)]
    gains = np.diff(steps)
    assert (gains >= -1e-12).all() and (np.diff(gains) <= 1e-9).all()
    assert steps[1] == pytest.approx(quality.mean(axis=0).max())
    assert steps[-1] == pytest.approx(quality.max(axis=1).mean())


@given(tables, st.integers(1, 3))
def test_it_reaches_its_part_of_the_best_pool(quality: np.ndarray, k: int) -> None:
    pools = combinations(range(quality.shape[1]), min(k, quality.shape[1]))
    best = max(coverage(quality, pool) for pool in pools)
    assert coverage(quality, select_pool(quality, k)) >= (1 - 1 / np.e) * best - 1e-9


def test_a_budget_buys_what_gains_most_for_its_cost() -> None:
    # C gains a third for 1, which is more for the money than A's half for 3; then nothing but B or D is left to pay.
    assert select_pool(QUALITY, cost=np.array([3.0, 2.0, 1.0, 2.0]), budget=3.0) == (2, 1)


def test_who_adds_nothing_is_not_picked() -> None:
    assert select_pool(np.array([[1.0, 1.0], [0.0, 0.0]]), 2) == (0,)


def test_who_was_not_asked_covers_nothing() -> None:
    quality = np.array([[np.nan, 1.0], [1.0, np.nan]])
    assert coverage(quality, (0,)) == 0.5 and select_pool(quality, 2) == (0, 1)
    assert coverage(quality, ()) == 0.0


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({}, "needs a limit"),
        ({"k": 0}, "1 or more"),
        ({"budget": 1.0}, "a cost above 0 for each"),
        ({"budget": 1.0, "cost": np.zeros(4)}, "a cost above 0 for each"),
        ({"budget": 1.0, "cost": np.full(4, 2.0)}, "the cheapest costs 2"),
    ],
)
def test_limits_that_leave_nobody_are_refused(limits: dict[str, object], why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        select_pool(QUALITY, **limits)  # type: ignore[arg-type]
