"""Predictions weighed by trust, and the fallback on the best single member."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.guards.rightness import Trust
from ensemble.before.heads.head import Outcome
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.heads.trusted import Trusted, held_back, mixed, surely

UNIT = st.floats(0, 1)
X = np.eye(4)
RIGHT = np.array([[0.9, 0.55], [0.6, 0.55], [0.4, 0.55], [0.7, 0.55]])


def head(p: tuple[float, float], sure: float = 0.0) -> Trusted:
    return Trusted(Neighbours.fit(X, RIGHT, 1), Trust(np.zeros(1), np.array([p]), 0.1), 1, 1, sure)


def test_three_scores_of_a_task() -> None:
    """Shnitzer: A is predicted 0.9, 0.6, 0.4, 0.7 and trusted 0.8; B 0.55 four times and trusted 0.6."""
    s1, s2, s3 = head((0.8, 0.6)).of_task(X)
    assert s1 == pytest.approx((0.65, 0.55))
    assert s2 == pytest.approx((0.75, 1.0))
    assert s3 == pytest.approx((0.65, 0.60))


@given(UNIT, UNIT, UNIT)
def test_full_trust_and_none(share: float, other: float, trust: float) -> None:
    one = np.array([[share]])
    assert mixed(one, np.ones((1, 1)))[0, 0] == pytest.approx(share)
    assert mixed(one, np.full((1, 1), 0.5))[0, 0] == pytest.approx(0.5)
    half = (share + other) / 2
    ends = [mixed(np.array([[s]]), np.array([[trust]]))[0, 0] for s in (share, other, half)]
    assert ends[2] == pytest.approx((ends[0] + ends[1]) / 2)


def test_a_threshold_of_nothing_makes_all_right() -> None:
    trusted = head((0.8, 0.6))
    trusted.threshold = 0.0
    assert trusted.of_task(X)[1].tolist() == [1.0, 1.0]


def test_who_is_surely_better() -> None:
    # (0.8 − 0.6) ÷ √(0.16 + 0.24) = 0.316228, of which the normal distribution makes 0.624085.
    scores = np.array([[0.8, 0.6]])
    assert surely(scores, 1, 0.624, 1)[0, 0]
    assert not surely(scores, 1, 0.625, 1)[0, 0]
    assert surely(scores, 1, 0.625, 100)[0, 0]
    assert surely(scores, 1, 0.0, 1).all()


def test_in_doubt_the_best_on_average_is_on_top_and_order_below_it_is_kept() -> None:
    scores = np.array([[0.62, 0.60, 0.1]])
    held = held_back(scores, 1, 0.9, 1)[0]
    assert held.argmax() == 1
    assert held[1] == 0.60
    assert held[0] == pytest.approx(0.60)
    assert held[2] == 0.1
    assert np.array_equal(held_back(scores, 1, 0.0, 1), scores)


def test_scores_of_single_queries() -> None:
    assert head((0.8, 0.6)).scores(X[:1])[0] == pytest.approx((0.9 * 0.8 + 0.1 * 0.2, 0.55 * 0.6 + 0.45 * 0.4))
    binary = head((0.8, 0.6))
    binary.binary = True
    assert binary.scores(X[2:3])[0] == pytest.approx((0.2, 0.6))


def test_a_member_that_comes_later_changes_nobody() -> None:
    trusted = head((0.8, 0.6), sure=0.6)
    wider = trusted.widen(X[:2], np.ones(2))
    assert np.array_equal(wider.scores(X)[:, :2], trusted.scores(X))
    assert wider.scores(X)[0, 2] == pytest.approx(0.7)


def test_outcomes_join_the_store() -> None:
    trusted = head((0.9, 0.9))
    trusted.learn(Outcome(x=X[0], member=1, quality=0.0))
    before = head((0.9, 0.9)).scores(X)
    after = trusted.scores(X)
    assert np.array_equal(after[1:], before[1:])
    assert len(trusted.base.x) == 5
