"""Recommending: cells that are worth their price, judges that are worth their word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.arms import Constant
from ensemble.before.recommending.acquisition import gains, select_cells
from ensemble.before.recommending.evaluator import Estimate, Evaluator
from ensemble.before.recommending.simulation import reached, uncovered
from ensemble.before.relm import corrected, recommender
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table


def estimate(mean: float, variance: float) -> Estimate:
    return Estimate(np.array([mean]), np.array([variance]))


def test_two_estimates_become_one_as_worked_out() -> None:
    found = Evaluator(0.0, 0.01).combined(estimate(0.7, 0.04), np.array([0.9]))
    assert found.mean[0] == pytest.approx(0.86, abs=5e-7) and found.variance[0] == pytest.approx(0.008, abs=5e-7)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-0.2, 0.2))
def test_a_judge_without_noise_is_trusted_fully(judged: float, expected: float, bias: float) -> None:
    found = Evaluator(bias, 0.0).combined(estimate(expected, 0.0), np.array([judged]))
    assert found.mean[0] == pytest.approx(judged - bias) and found.variance[0] == 0


def test_a_judge_that_says_nothing_changes_nothing() -> None:
    found = Evaluator(0.3, 0.0).combined(estimate(0.7, 0.04), np.array([np.nan]))
    assert (found.mean[0], found.variance[0]) == (0.7, 0.04)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_two_are_surer_than_one(variance: float, noise: float) -> None:
    found = Evaluator(0.0, noise).combined(estimate(0.5, variance), np.array([0.9]))
    assert found.variance[0] <= min(variance, noise) and 0.5 <= found.mean[0] <= 0.9


def test_a_judge_is_known_by_answers_of_known_quality() -> None:
    found = Evaluator.fit(np.array([0.9, 0.5, np.nan, 0.4]), np.array([0.8, 0.2, 1.0, np.nan]))
    assert found == pytest.approx((0.2, 0.02))
    with pytest.raises(BadRequest, match="there are 1"):
        Evaluator.fit(np.array([0.9]), np.array([0.8]))


def test_a_noisy_judge_is_drawn_to_what_the_others_say() -> None:
    training = table(n=150, members=2, tasks=2, graded=True)
    truth = training.table.quality
    noise = 0.3 * np.random.default_rng(0).standard_normal(truth.shape)
    judged = replace(training.table, quality=truth + noise + 0.1)
    found = corrected(training.x, judged, 3.0, Evaluator(0.1, 0.09)).quality
    assert np.abs(found - truth).mean() < 0.6 * np.abs(judged.quality - 0.1 - truth).mean()
    exact = corrected(training.x, replace(training.table, quality=truth + 0.1), 3.0, Evaluator(0.1, 0.0)).quality
    assert np.allclose(exact, truth)


def test_no_cell_is_bought_twice_and_none_that_is_known() -> None:
    training = table(n=40, members=3, holes=0.6)
    observed = training.table.observed
    head = recommender(training.x, training.table, 3.0)
    cells = select_cells(head, training.x, observed, 30)
    assert len({tuple(cell) for cell in cells.tolist()}) == 30
    assert not observed[cells[:, 0], cells[:, 1]].any()
    everything = select_cells(head, training.x, observed, 10**6)
    assert len(everything) == (~observed).sum()


def test_the_best_possible_regret_comes_first() -> None:
    training = table(n=30, members=3, holes=0.5)
    head = recommender(training.x, training.table, 3.0)
    gain = gains(head, training.x, training.table.observed)
    first = select_cells(head, training.x, training.table.observed, 1)[0]
    assert gain[tuple(first)] == gain.max() and np.isneginf(gain[training.table.observed]).all()


def test_of_queries_that_are_alike_one_is_asked() -> None:
    training = table(n=30, members=2, holes=0.5)
    x = np.repeat(training.x[:6], 5, axis=0)
    head = recommender(training.x, training.table, 3.0)
    cells = select_cells(head, x, np.zeros((30, 2), bool), 12)
    assert len({(row // 5, member) for row, member in cells.tolist()}) == 12


def test_who_does_not_know_how_sure_it_is_cannot_choose() -> None:
    with pytest.raises(ValueError, match="constant do not know"):
        gains(Constant(np.ones(2)), np.zeros((1, 2)), np.zeros((1, 2), bool))


def test_the_full_budget_is_the_full_table() -> None:
    training = table(n=40, members=3, holes=0.3)
    for way in ("regret", "random"):
        seen = uncovered(training, 10**6, start=10, rounds=3, penalty=3.0, way=way)
        assert np.array_equal(seen, training.table.observed)


def test_a_larger_budget_has_less_regret_on_average() -> None:
    found = []
    for budget in (15, 60, 240):
        values = []
        for seed in range(6):
            training, held = table(n=200, members=3, seed=seed), table(n=200, members=3, seed=100 + seed)
            seen = uncovered(training, budget, start=12, rounds=4, penalty=1.0)
            assert seen.sum() == budget
            values.append(reached(training, seen, held, 1.0))
        found.append(np.mean(values))
    assert found == sorted(found) and found[-1] > found[0] + 0.1
