"""Bradley-Terry, Elo and tiers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.solvers.strengths import bradley_terry, elo_step, rated, tiers, win_share, won

POINTS = st.lists(st.floats(0.5, 50), min_size=12, max_size=12)


def matrix(points: list[float]) -> np.ndarray:
    wins = np.zeros((4, 4))
    wins[~np.eye(4, dtype=bool)] = points
    return wins


def test_two_competitors_have_a_closed_form() -> None:
    wins = np.array([[0, 100.0], [12.915497, 0]])
    strengths = bradley_terry(wins)
    gap = strengths[0] - strengths[1]
    assert gap == pytest.approx(2.046742, abs=5e-7)
    assert rated(strengths)[0] - rated(strengths)[1] == pytest.approx(355.5555, abs=1e-4)
    assert won(gap) == pytest.approx(0.885618, abs=5e-7)


def test_a_gap_of_a_hundred_points() -> None:
    assert won(np.log(10) * 100 / 400) == pytest.approx(0.640065, abs=5e-7)


@given(POINTS)
def test_at_the_likeliest_strengths_each_wins_as_often_as_expected(points: list[float]) -> None:
    wins = matrix(points)
    strengths = bradley_terry(wins)
    expected = ((wins + wins.T) * won(strengths[:, None] - strengths[None, :])).sum(axis=1)
    assert np.allclose(expected, wins.sum(axis=1), rtol=1e-6)
    assert strengths.sum() == pytest.approx(0, abs=1e-9)


@given(POINTS, st.floats(0.1, 10))
def test_only_the_ratios_of_points_count(points: list[float], factor: float) -> None:
    assert np.allclose(bradley_terry(matrix(points)), bradley_terry(factor * matrix(points)), atol=1e-7)


def test_many_problems_are_solved_at_once() -> None:
    random = np.random.default_rng(0)
    several = np.stack([matrix(random.uniform(1, 9, 12).tolist()) for _ in range(5)])
    assert np.allclose(bradley_terry(several), [bradley_terry(one) for one in several])


def test_who_never_lost_is_strong_but_finite() -> None:
    unbeaten = np.array([[0, 9.0], [0, 0]])
    assert np.isfinite(bradley_terry(unbeaten)).all() and bradley_terry(unbeaten)[0] > 5
    assert bradley_terry(unbeaten, pseudo=1)[0] == pytest.approx(np.log(9.5 / 0.5) / 2)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(-5, 5))
def test_a_constant_in_all_strengths_changes_nothing(strengths: list[float], shift: float) -> None:
    row = np.array([strengths])
    assert np.allclose(win_share(row), win_share(row + shift))
    assert (np.argsort(win_share(row), kind="stable") == np.argsort(win_share(row), kind="stable")).all()


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6, unique=True))
def test_shares_of_wins_are_in_the_order_of_strengths(strengths: list[float]) -> None:
    shares = win_share(np.array([strengths]))[0]
    order = np.argsort(strengths)
    assert (np.diff(shares[order]) >= -1e-12).all() and ((shares >= 0) & (shares <= 1)).all()
    assert shares.sum() == pytest.approx(len(strengths) / 2)


def test_two_wins_by_elo() -> None:
    ratings = [1000.0, 1000.0]
    elo_step(ratings, 0, 1, 1.0, 32)
    assert ratings == [1016.0, 984.0]
    elo_step(ratings, 0, 1, 1.0, 32)
    assert ratings == pytest.approx([1030.5305, 969.4695], abs=5e-5)
    elo_step(ratings, 0, 1, 0.0, 32)
    assert ratings == pytest.approx([1011.7471, 988.2529], abs=5e-5)


@given(st.lists(st.floats(800, 1200), min_size=3, max_size=3), st.floats(0, 1))
def test_elo_conserves_the_sum(ratings: list[float], score: float) -> None:
    after = list(ratings)
    elo_step(after, 0, 2, score, 32)
    assert sum(after) == pytest.approx(sum(ratings)) and after[1] == ratings[1]


def test_tiers_have_the_least_sum_of_variances() -> None:
    random = np.random.default_rng(1)
    values = random.normal(1000, 100, 7)
    found = tiers(values, 3)
    ordered = np.sort(values)

    def cost(a: int, b: int) -> float:
        return float(ordered[:a].var() + ordered[a:b].var() + ordered[b:].var())

    best = min(cost(a, b) for a in range(1, 6) for b in range(a + 1, 7))
    assert sum(values[found == t].var() for t in range(3)) == pytest.approx(best)
    assert sorted(set(found)) == [0, 1, 2] and (np.diff(found[np.argsort(values)]) >= 0).all()


def test_as_many_tiers_as_competitors_part_all() -> None:
    assert tiers(np.array([3.0, 1.0, 2.0]), 10).tolist() == [2, 0, 1]
    assert tiers(np.array([3.0, 1.0, 2.0]), 3).tolist() == [2, 0, 1]
