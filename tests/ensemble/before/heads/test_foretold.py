"""The confidence that a right member is expected to have."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.foretold import Foretold
from ensemble.before.heads.head import Outcome
from ensemble.before.heads.linear import Logistic, Ridge

ORDER = np.array([0, 1])


def confidences() -> Ridge:
    """The first two numbers of the embedding."""
    return Ridge(np.vstack([np.eye(2), np.zeros((1, 2))]))


def test_scores_are_distances_from_what_is_foretold() -> None:
    head = Foretold(confidences(), Ridge(np.array([[1.0], [0.0], [0.1]])))
    assert head.scores(np.array([[0.5, 0.55]]))[0] == pytest.approx((-0.1, -0.05))


def test_the_first_member_that_is_right_is_foretold() -> None:
    x = np.random.default_rng(0).random((50, 2))
    right = np.tile([1.0, 1.0], (50, 1))
    head = Foretold.fit(confidences(), x, right, ORDER)
    assert (head.scores(x).argmax(axis=1) == 0).all()
    head = Foretold.fit(confidences(), x, right, ORDER[::-1].copy())
    assert (head.scores(x).argmax(axis=1) == 1).all()


def test_queries_that_nobody_gets_right_and_holes_are_left_out() -> None:
    x = np.random.default_rng(0).random((50, 2))
    right = np.tile([np.nan, 1.0], (50, 1))
    right[::2] = 0.0
    assert (Foretold.fit(confidences(), x, right, ORDER).scores(x).argmax(axis=1) == 1).all()


def test_a_newcomer_is_held_against_what_is_foretold() -> None:
    head = Foretold(confidences(), Ridge(np.array([[1.0], [0.0], [0.1]])))
    x = np.array([[0.5, 0.55]])
    wider = head.widen(x[:0], np.zeros(0))
    assert np.array_equal(wider.scores(x)[:, :2], head.scores(x))
    assert wider.scores(x)[0, 2] == pytest.approx(-abs(wider.confidences.scores(x)[0, 2] - 0.6))


def test_the_confidences_go_on_learning() -> None:
    head = Foretold(Logistic(np.zeros((3, 2))), Ridge(np.zeros((3, 1))))
    head.learn(Outcome(x=np.ones(2), member=1, quality=1.0))
    assert head.confidences.scores(np.ones((1, 2)))[0, 1] > 0.5
