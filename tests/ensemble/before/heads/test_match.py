"""Match: more samples never match less, and the reference matches itself."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.linear import Logistic
from ensemble.before.heads.match import Match
from ensemble.before.routing.parts import NeedsFit
from ensemble.before.solvers.convex import sigmoid

X = np.random.default_rng(0).standard_normal((200, 3))


def of(weights: np.ndarray, below: list[int], sure: bool = True) -> Match:
    order = np.argsort(below, kind="stable")
    return Match(Logistic(weights), 0, order, np.array(below), sure)


def test_the_worked_example() -> None:
    margins = [2 * float(sigmoid(np.array(good - bad))) - 1 for good, bad in ((1, 0), (0, 0.5))]
    assert [round(m, 6) for m in margins] == [0.462117, -0.244919]
    weights = np.zeros((4, 3))
    weights[-1] = [0, 1, -0.5]
    scores = of(weights, [-1, -1, -1]).scores(np.zeros((1, 3)))[0]
    assert (2 * scores[1:] - 1).round(6).tolist() == [0.462117, -0.244919] and scores[0] == 1


def test_scores_do_not_fall_with_samples() -> None:
    weights = np.random.default_rng(1).standard_normal((4, 4))
    plain, nested = of(weights, [-1, -1, -1, -1]), of(weights, [-1, -1, 1, 2])
    scores = nested.scores(X)
    assert (np.diff(scores[:, 1:], axis=1) >= 0).all()
    np.testing.assert_allclose(scores[:, 3], plain.scores(X)[:, 1:].max(axis=1))


def test_of_two_members_one_has_what_the_other_has_not() -> None:
    scores = of(np.random.default_rng(2).standard_normal((4, 2)), [-1, -1], sure=False).scores(X)
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_soft_labels_are_learned_and_holes_are_not() -> None:
    p = sigmoid(3 * X[:, 0])
    labels = np.stack([np.full(200, np.nan), p, 1 - p], axis=1)
    labels[::3, 1] = np.nan
    scores = Match.fit(X, labels, 0, penalty=0.01).scores(X)
    np.testing.assert_allclose(scores[:, 1], p, atol=0.05)
    np.testing.assert_allclose(scores[:, 2], 1 - p, atol=0.05)


@pytest.mark.parametrize(("noisy", "larger"), [(False, False), (True, True)])
def test_the_penalty_is_what_does_well_on_queries_held_out(noisy: bool, larger: bool) -> None:
    random = np.random.default_rng(3)
    p = random.integers(0, 2, 200).astype(float) if noisy else sigmoid(4 * X[:, 0])
    x = random.standard_normal((200, 40)) if noisy else X
    labels = np.stack([np.full(200, np.nan), p], axis=1)
    found = [Match.fit(x, labels, 0, penalty=penalty).scores(x) for penalty in (0.3, 100.0, None)]
    near = [np.abs(found[2] - one).mean() for one in found[:2]]
    assert (near[1] < near[0]) == larger


def test_a_newcomer_matches_where_it_is_right_or_the_reference_is_wrong() -> None:
    x = np.eye(3)[np.arange(300) % 3]
    # The reference is right on the first kind of queries, the newcomer on the second.
    right, own = (np.arange(300) % 3 == 0).astype(float), (np.arange(300) % 3 == 1).astype(float)
    labels = np.full((300, 2), 0.5)
    head = Match.fit(x, labels, 0, [[0], [1]], penalty=0.1, right=right)
    wider = head.widen(x, own)
    scores = wider.scores(np.eye(3))
    assert scores[0, 2] + 0.1 < scores[1, 2] == pytest.approx(scores[2, 2], abs=0.02)
    assert np.array_equal(scores[:, :2], head.scores(np.eye(3)))


def test_between_two_there_is_no_place_for_a_third() -> None:
    head = Match.fit(X, np.full((200, 2), 0.5), 0, sure=False)
    with pytest.raises(NeedsFit, match="no place for a third") as refused:
        head.widen(X, np.ones(200))
    assert "best_route" in str(refused.value.instead)
