"""Squared error with a hinge between members."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.heads.linear import Ridge
from ensemble.before.solvers.ranking import hinged, ranked
from tests.ensemble.before.toys import table


def test_hinge_of_one_query() -> None:
    quality = np.array([[1.0, 0.0, np.nan]])
    hinge, slope = hinged(np.array([[0.5, 0.45, 9.0]]), quality, 0.2)
    assert hinge == pytest.approx(0.15**2)
    assert slope[0] == pytest.approx((-0.3, 0.3, 0.0))


def test_who_did_best_together_is_ahead_on_average() -> None:
    hinge, slope = hinged(np.array([[0.5, 0.3, 0.4]]), np.array([[1.0, 1.0, 0.0]]), 0.2)
    assert hinge == pytest.approx(0.2**2)
    assert slope[0] == pytest.approx((-0.2, -0.2, 0.4))


def test_ties_and_order_cost_nothing() -> None:
    hinge, slope = hinged(np.array([[0.1, 0.9], [0.9, 0.1]]), np.array([[1.0, 1.0], [1.0, 0.0]]), 0.2)
    assert hinge == 0
    assert not slope.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_the_slope_is_the_derivative(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, quality = random.random((4, 3)), random.random((4, 3))
    quality[random.random((4, 3)) < 0.2] = np.nan
    _, slope = hinged(scores, quality, 0.3)
    step = 1e-6 * random.standard_normal((4, 3))
    change = hinged(scores + step, quality, 0.3)[0] - hinged(scores - step, quality, 0.3)[0]
    assert change == pytest.approx(float((2 * step * slope).sum()), abs=1e-10)


def test_without_weight_it_is_the_ridge() -> None:
    training = table(holes=0.3)
    start = Ridge.fit(training.x, training.table.quality, 2.0)
    away = Ridge(np.zeros_like(start.weights))
    found = ranked(training.x, training.table.quality, away, 2.0, 0.0, 0.2)
    assert np.allclose(found.weights, start.weights, atol=1e-2)


def test_weight_lessens_the_hinge() -> None:
    training = table()
    quality = training.table.quality
    start = Ridge.fit(training.x, quality, 2.0)
    found = ranked(training.x, quality, start, 2.0, 5.0, 0.3)
    assert hinged(found.scores(training.x), quality, 0.3)[0] < 0.9 * hinged(start.scores(training.x), quality, 0.3)[0]
