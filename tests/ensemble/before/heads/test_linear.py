"""Linear heads: what they learn in service, how sure they are, members that come later."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.head import Outcome
from ensemble.before.heads.linear import Logistic, Ridge, Softmax
from ensemble.before.routing.parts import NeedsFit
from ensemble.before.targets.labels import soft
from tests.ensemble.before.toys import table


@pytest.mark.parametrize("kind", [Ridge, Logistic])
def test_an_outcome_moves_that_member_towards_it_and_no_other(kind: type[Ridge] | type[Logistic]) -> None:
    training = table()
    head = kind.fit(training.x, training.table.quality, 1.0)
    x = training.x[0]
    before = head.scores(training.x)
    head.learn(Outcome(x=x, member=1, quality=1.0))
    after = head.scores(training.x)
    assert before[0, 1] < after[0, 1] < 1.0
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])


@pytest.mark.parametrize("kind", [Ridge, Logistic])
def test_many_equal_outcomes_are_believed(kind: type[Ridge] | type[Logistic]) -> None:
    training = table()
    head = kind.fit(training.x, training.table.quality, 1.0)
    for _ in range(300):
        head.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    assert head.scores(training.x[:1])[0, 1] == pytest.approx(1.0, abs=0.05)


def test_a_rate_of_zero_learns_nothing() -> None:
    training = table()
    head = Ridge.fit(training.x, training.table.quality, 1.0, rate=0.0)
    before = head.weights.copy()
    head.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    assert np.array_equal(head.weights, before)


def test_the_spread_is_that_of_the_estimate() -> None:
    """Fits to many tables that differ by noise alone spread as the head says of itself."""
    random = np.random.default_rng(0)
    x = random.standard_normal((80, 3))
    truth = x @ np.array([0.3, -0.2, 0.1]) + 0.5
    targets = truth[:, None] + 0.2 * random.standard_normal((80, 400))
    heads = Ridge.fit(x, targets, 1e-6, spread=True)
    spread = heads.spread(x[:5])
    assert spread is not None
    assert np.allclose(spread.mean(axis=1), heads.scores(x[:5]).std(axis=1), rtol=0.15)


def test_the_spread_is_not_known_unless_asked_for() -> None:
    training = table()
    assert Ridge.fit(training.x, training.table.quality, 1.0).spread(training.x) is None


def test_fewer_outcomes_of_a_member_are_less_sure() -> None:
    training = table(300)
    quality = training.table.quality.copy()
    quality[60:, 1] = np.nan
    head = Ridge.fit(training.x, quality, 1.0, spread=True)
    spread = head.spread(training.x)
    assert spread is not None
    assert spread[0, 1] > 1.5 * spread[0, 0]


@pytest.mark.parametrize("kind", [Ridge, Logistic])
def test_a_member_that_comes_later(kind: type[Ridge] | type[Logistic]) -> None:
    training = table()
    head = kind.fit(training.x, training.table.quality, 1.0)
    good, poor = np.ones(40), np.zeros(40)
    wider = head.widen(training.x[:40], good)
    assert np.allclose(wider.scores(training.x)[:, :3], head.scores(training.x))
    assert wider.scores(training.x)[:, 3].mean() > 0.7
    assert head.widen(training.x[:40], poor).scores(training.x)[:, 3].mean() < 0.3
    unknown = head.widen(training.x[:0], good[:0]).scores(training.x)[:, 3]
    assert np.allclose(unknown.mean(), head.scores(training.x).mean(), atol=0.1)


def test_a_label_is_followed() -> None:
    training = table()
    head = Softmax.fit(training.x, np.full((240, 3), 1 / 3), 1.0)
    before = head.scores(training.x[:1])[0]
    after = head.follow(training.x[0], np.array([0.0, 0.0, 1.0])).scores(training.x[:1])[0]
    assert after[2] > before[2]
    assert after.sum() == pytest.approx(1)


def test_shares_of_who_is_best_take_no_member_without_a_fit() -> None:
    head = Softmax.fit(np.eye(3), np.eye(3), 1.0)
    with pytest.raises(NeedsFit, match="labels that name the best of each query"):
        head.widen(np.eye(3), np.ones(3))


def test_a_newcomers_share_is_what_its_qualities_would_have_made_it() -> None:
    training = table(600, members=4, tasks=4)
    quality = training.table.quality
    three, four = soft(quality[:, :3], 0.5), soft(quality, 0.5)
    head = Softmax.fit(training.x, three, 1.0).over(training.x, quality[:, :3], 0.5)
    wider, whole = head.widen(training.x, quality[:, 3]), Softmax.fit(training.x, four, 1.0)
    before, after = head.scores(training.x), wider.scores(training.x)
    assert np.allclose(after[:, :3] / after[:, :3].sum(axis=1, keepdims=True), before)
    assert np.abs(after - whole.scores(training.x)).mean() < 0.03
    nobody = head.widen(training.x[:0], np.zeros(0)).scores(training.x)
    assert nobody[:, 3].mean() == pytest.approx(0.25, abs=0.03)


def test_holes_do_not_lower_what_a_newcomer_is_held_against() -> None:
    x, quality = np.eye(4)[np.arange(400) % 4], np.full((400, 3), 0.5)
    holes = quality.copy()
    holes[np.arange(400), np.arange(400) % 3] = np.nan
    heads = [Softmax(np.zeros((5, 3))).over(x, known, 0.5) for known in (quality, holes)]
    assert heads[0].level == pytest.approx(heads[1].level)


def test_the_penalty_that_is_chosen_leaves_the_choices_as_good() -> None:
    training = table(400)
    penalty = Ridge.tuned(training.x, training.table.quality, (0.1, 10.0, 1e9), 0)
    assert penalty == 10.0


def test_equal_seeds_choose_the_same_penalty() -> None:
    training = table(60)
    grid = (0.1, 1.0, 10.0, 100.0)
    tuned = [Ridge.tuned(training.x, training.table.quality, grid, 5) for _ in range(2)]
    assert tuned[0] == tuned[1]
