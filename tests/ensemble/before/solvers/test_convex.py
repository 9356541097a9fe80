"""Fits of linear heads, against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.heads.linear import Ridge
from ensemble.before.solvers import convex

SEEDS = st.integers(0, 2**16)


def drawn(seed: int, n: int = 60, d: int = 4, members: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.standard_normal((n, d)), random.random((n, members))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_ridge_is_that_of_scikit_learn_member_by_member(seed: int) -> None:
    from sklearn.linear_model import Ridge as Theirs

    x, target = drawn(seed)
    target[np.random.default_rng(seed).random(target.shape) < 0.3] = np.nan
    (weights,) = convex.ridge(x, target, [2.5])
    for m in range(3):
        seen = ~np.isnan(target[:, m])
        theirs = Theirs(alpha=2.5).fit(x[seen], target[seen, m])
        assert np.allclose(weights[:-1, m], theirs.coef_)
        assert weights[-1, m] == pytest.approx(theirs.intercept_)


def test_ridge_in_blocks_is_ridge_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, target = drawn(1)
    (whole,) = convex.ridge(x, target, [1.0])
    monkeypatch.setattr(convex, "_BLOCK", 7)
    (blocks,) = convex.ridge(x, target, [1.0])
    assert np.allclose(whole, blocks)


def test_a_member_without_outcomes_scores_nothing() -> None:
    x, target = drawn(2)
    target[:, 1] = np.nan
    (weights,) = convex.ridge(x, target, [1.0])
    assert not weights[:, 1].any()
    assert weights[:, 0].any()


def test_a_large_penalty_leaves_the_means() -> None:
    x, target = drawn(3)
    (weights,) = convex.ridge(x, target, [1e12])
    assert np.allclose(Ridge(weights).scores(x), target.mean(axis=0))


def test_logistic_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, target = drawn(4, n=200)
    target = (target + 0.2 * x[:, :1] > 0.5).astype(float)
    weights = convex.logistic(x, target, 2.0, np.ones(target.shape), np.zeros((5, 3)))
    for m in range(3):
        theirs = LogisticRegression(C=0.5, tol=1e-8).fit(x, target[:, m])
        assert np.allclose(weights[:-1, m], theirs.coef_[0], atol=2e-3)


def test_fractions_are_that_many_of_each() -> None:
    x, target = np.zeros((10, 2)), np.full((10, 1), 0.3)
    weights = convex.logistic(x, target, 1.0, np.ones(target.shape), np.zeros((3, 1)))
    assert convex.sigmoid(weights[-1])[0] == pytest.approx(0.3, abs=1e-4)


def test_holes_of_the_logistic_do_not_count() -> None:
    x, target = drawn(5)
    holes = target.copy()
    holes[40:] = np.nan
    ones = np.ones(target.shape)
    cut = convex.logistic(x[:40], target[:40], 1.0, ones[:40], np.zeros((5, 3)))
    assert np.allclose(convex.logistic(x, holes, 1.0, ones, np.zeros((5, 3))), cut, atol=1e-2)


def test_softmax_without_features_gives_the_mean_label() -> None:
    label = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]] * 20)
    weights = convex.softmax(np.zeros((40, 2)), label, 1.0, np.zeros((3, 3)))
    assert np.allclose(convex.shared(weights[-1:])[0], [0.4, 0.4, 0.2], atol=1e-3)


def test_a_row_says_nothing_of_a_hole() -> None:
    """Whoever is not observed is not taken for worse: the third is told of by the second half of the rows alone."""
    label = np.array([[0.5, 0.5, np.nan]] * 30 + [[np.nan, 0.2, 0.8]] * 30)
    weights = convex.softmax(np.zeros((60, 1)), label, 1e-9, np.zeros((2, 3)))
    shares = convex.shared(weights[-1:])[0]
    assert shares[0] == pytest.approx(shares[1], rel=1e-2)
    assert shares[2] / shares[1] == pytest.approx(4, rel=1e-2)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=5))
def test_shares_sum_to_one_and_keep_the_order(logits: list[float]) -> None:
    shares = convex.shared(np.array([logits]))[0]
    assert shares.sum() == pytest.approx(1)
    assert shares[int(np.argmax(logits))] == shares.max()


def test_who_is_barred_gets_no_share() -> None:
    assert convex.shared(np.array([[0.0, -np.inf], [-np.inf, -np.inf]])).tolist() == [[1.0, 0.0], [0.0, 0.0]]
