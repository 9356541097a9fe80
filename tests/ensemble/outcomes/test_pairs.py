"""A strong and a weak member: the curve over the strong one's share and what is read off it."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.outcomes.pairs import FRACTIONS, drop, mean_recovered, quality_by_share, recovered, share_needed

SHARES = np.array([0, 0.5, 1])
QUALITY = np.array([0.60, 0.75, 0.80])


def test_the_worked_example() -> None:
    assert np.trapezoid(QUALITY, SHARES) == pytest.approx(0.725)
    assert recovered(QUALITY).tolist() == pytest.approx([0, 0.75, 1])
    assert mean_recovered(QUALITY, SHARES) == pytest.approx(0.625, abs=5e-7)
    assert share_needed(QUALITY, 0.5, SHARES) == pytest.approx(0.333333, abs=5e-7)
    assert share_needed(QUALITY, 0.8, SHARES) == pytest.approx(0.6, abs=5e-7)


def test_the_curve_sends_the_highest_scores_to_the_strong_member() -> None:
    strong, weak = np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    at = quality_by_share(strong, weak, np.array([0.9, 0.2, 0.1, 0.8]), np.array([0, 0.25, 0.5, 0.75, 1]))
    assert at.tolist() == [0.5, 0.75, 1.0, 1.0, 0.75]


def test_without_a_gap_there_is_no_figure() -> None:
    for quality in (np.array([0.8, 0.7, 0.8]), np.array([0.8, 0.9, 0.6])):
        assert np.isnan(recovered(quality)).all()
        assert isnan(mean_recovered(quality, SHARES)) and isnan(share_needed(quality, 0.5, SHARES))


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_ends_are_the_members_themselves_and_the_oracle_is_above_all(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    strong, weak, score = random.integers(0, 2, n) * 1.0, random.integers(0, 2, n) * 1.0, random.random(n)
    curve, oracle = quality_by_share(strong, weak, score), quality_by_share(strong, weak, strong - weak)
    assert curve[0] == pytest.approx(weak.mean()) and curve[-1] == pytest.approx(strong.mean())
    assert (oracle >= curve - 1e-9).all()


def test_chance_closes_half_of_the_gap() -> None:
    random = np.random.default_rng(0)
    strong, weak = (random.random(4000) < 0.8) * 1.0, (random.random(4000) < 0.5) * 1.0
    curves = [quality_by_share(strong, weak, random.random(4000)) for _ in range(20)]
    assert np.mean([mean_recovered(curve) for curve in curves]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([share_needed(curve, 0.5) for curve in curves]) == pytest.approx(0.5, abs=0.04)


def test_a_share_is_the_least_where_the_curve_comes_down_again() -> None:
    quality = np.array([0.0, 1.0, 0.2, 1.0])
    assert share_needed(quality, 0.5, np.array([0, 0.2, 0.6, 1])) == pytest.approx(0.1)
    assert share_needed(quality, 0.0, np.array([0, 0.2, 0.6, 1])) == 0
    assert len(FRACTIONS) == 101


def test_quality_lost_against_the_large_member() -> None:
    assert drop(0.72, 0.8) == pytest.approx(0.1)
    assert drop(-2.2, -2.0) == pytest.approx(0.1)
    assert isnan(drop(0.1, 0.0))
