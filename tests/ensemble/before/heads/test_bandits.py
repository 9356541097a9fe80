"""Linear bandits: one outcome at a time is ridge regression, and each member knows how sure it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.before.heads.bandits import LinearBandit
from ensemble.before.heads.head import Outcome
from ensemble.before.targets.rewards import Weighted
from ensemble.outcomes.dense import Dense, Floats
from tests.ensemble.before.toys import plain, table

X = np.array([0.6, 0.8], np.float64)


def empty(members: int = 2, size: int = 2, penalty: float = 1.0, **options: float) -> LinearBandit:
    none = Dense(queries=(), texts=(), members=tuple("abcdef"[:members]), quality=np.zeros((0, members)))
    reward = Weighted(cost=0.5, cost_scale=0.3)
    costs = np.full(members, np.nan)
    return LinearBandit.fit(np.zeros((0, size)), none, costs, reward, penalty, constant=0.0, **options)


def outcome(quality: float = 1.0, member: int = 0, cost: float = 0.2, x: Floats = X) -> Outcome:
    return Outcome(x=x, member=member, quality=quality, cost=cost)


def fitted(holes: float = 0.0, **options: float) -> LinearBandit:
    training = table(n=60, members=3, holes=holes)
    return LinearBandit.fit(training.x, training.table, np.full(3, np.nan), Weighted(), 2.0, **options)


def test_two_updates_as_worked_out() -> None:
    head = empty()
    assert head.reward.of(1.0, 0.2) == pytest.approx(0.666667, abs=5e-7)
    head.learn(outcome())
    assert head.weights[0] == pytest.approx([0.2, 0.266667], abs=5e-7)
    mean, width = head.scores(X[None])[0, 0], head.spread(X[None])[0, 0]
    assert (mean, width, mean + 0.5 * width) == pytest.approx((0.333333, 0.707107, 0.686887), abs=5e-7)
    assert head.inverse[head.owned[0]] == pytest.approx(np.array([[0.82, -0.24], [-0.24, 0.68]]), abs=5e-7)
    head.learn(outcome())
    mean, width = head.scores(X[None])[0, 0], head.spread(X[None])[0, 0]
    assert head.weights[0] == pytest.approx([0.266667, 0.355556], abs=5e-7)
    assert (mean, width, mean + 0.5 * width) == pytest.approx((0.444444, 0.577350, 0.733120), abs=1e-6)


def test_an_outcome_changes_its_member_alone() -> None:
    head, x = fitted(), table(n=9).x
    scores, spread = head.scores(x), head.spread(x)
    head.learn(outcome(member=1, x=x[0]))
    assert np.array_equal(np.delete(head.scores(x), 1, 1), np.delete(scores, 1, 1))
    assert np.array_equal(np.delete(head.spread(x), 1, 1), np.delete(spread, 1, 1))
    assert not np.allclose(head.scores(x)[:, 1], scores[:, 1]) and (head.spread(x)[:, 1] < spread[:, 1]).all()


def test_uncertainty_never_grows_and_matrices_stay_positive() -> None:
    head, random = empty(size=4), np.random.default_rng(0)
    x = random.standard_normal((30, 4))
    spread = head.spread(x)
    for row in x:
        head.learn(outcome(x=row))
        now = head.spread(x)
        assert (now <= spread + 1e-12).all()
        spread = now
    assert (np.linalg.eigvalsh(head.inverse) > 0).all()
    assert np.allclose(head.inverse, head.inverse.transpose(0, 2, 1))


@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_all_outcomes_in_any_order_are_ridge_regression(holes: float) -> None:
    training = table(n=60, members=3, holes=holes)
    head = LinearBandit.fit(training.x[:0], training.table.rows([]), np.full(3, np.nan), Weighted(), 2.0)
    cells = np.argwhere(training.table.observed)
    for row, member in cells[np.random.default_rng(3).permutation(len(cells))]:
        quality = float(training.table.quality[row, member])
        head.learn(Outcome(x=training.x[row], member=int(member), quality=quality))
    whole = fitted(holes)
    assert np.allclose(head.weights, whole.weights) and np.allclose(head.spread(training.x), whole.spread(training.x))
    rows = np.concatenate([training.x, np.ones((60, 1))], axis=1).astype(float)
    for m in range(3):
        seen = training.table.observed[:, m]
        design = rows[seen].T @ rows[seen] + 2.0 * np.eye(rows.shape[1])
        direct = np.linalg.solve(design, rows[seen].T @ training.table.quality[seen, m])
        assert np.allclose(whole.weights[m], direct)


def test_members_that_saw_the_same_share_a_matrix_until_one_learns() -> None:
    head = fitted()
    assert len(head.inverse) == 1
    head.learn(outcome(member=2, x=table(n=1).x[0]))
    head.learn(outcome(member=2, x=table(n=1).x[0]))
    assert len(head.inverse) == 2 and head.owned.tolist() == [0, 0, 1]


def test_forgetting_weighs_the_past_and_keeps_the_penalty() -> None:
    head = empty(members=1, forget=0.5, penalty=3.0)
    head.learn(outcome())
    head.learn(outcome(quality=0.0, cost=0.0))
    design = 3.0 * np.eye(2) + 1.5 * np.outer(X, X)
    assert np.allclose(np.linalg.inv(head.inverse[0]), design)
    assert head.weights[0] == pytest.approx(np.linalg.solve(design, 0.5 * X * 2 / 3))


def test_where_an_outcome_has_no_cost_the_members_mean_stands() -> None:
    known, told = empty(), empty()
    known.costs = np.array([0.2, 0.3])
    known.learn(outcome(cost=np.nan))
    told.learn(outcome(cost=0.2))
    assert np.allclose(known.weights, told.weights)


def test_a_new_member_is_learned_from_its_own_outcomes() -> None:
    head, training = fitted(), table(n=12)
    wide = head.widen(training.x[:6], np.ones(6))
    x = training.x
    assert np.array_equal(wide.scores(x)[:, :3], head.scores(x)) and np.array_equal(
        wide.spread(x)[:, :3], head.spread(x)
    )
    assert wide.scores(x[:6])[:, 3].min() > 0.4
    unknown = head.widen(x[:0], np.zeros(0))
    assert np.allclose(unknown.scores(x)[:, 3], 0) and (unknown.spread(x)[:, 3] > head.spread(x).max(axis=1)).all()


def test_holes_do_not_count() -> None:
    training = plain(np.eye(2), np.array([[1.0, np.nan], [1.0, 0.5]]))
    with_hole = LinearBandit.fit(training.x, training.table, np.full(2, np.nan), Weighted(), 1.0)
    second = LinearBandit.fit(training.x[1:], training.table.rows([1]), np.full(2, np.nan), Weighted(), 1.0)
    assert np.allclose(with_hole.weights[1], second.weights[1])
    worse = replace(training.table, quality=np.array([[1.0, 0.0], [1.0, 0.5]]))
    other = LinearBandit.fit(training.x, worse, np.full(2, np.nan), Weighted(), 1.0)
    assert not np.allclose(with_hole.weights[1], other.weights[1])
