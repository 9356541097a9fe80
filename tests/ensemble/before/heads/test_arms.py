"""Arms: reward-inaction, values and constants, whatever the query."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.arms import Automaton, Constant, Values
from ensemble.before.heads.head import Outcome
from ensemble.before.targets.rewards import Weighted

X = np.zeros((2, 3), np.float32)
REWARD = Weighted(cost=1.0)
STEPS = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1), st.floats(0, 3)), max_size=30)


def told(member: int, quality: float, cost: float = float("nan")) -> Outcome:
    return Outcome(x=X[0], member=member, quality=quality, cost=cost)


def test_reward_inaction_as_worked_out() -> None:
    head = Automaton.cold(4, REWARD, step=0.1)
    head.learn(told(1, 0.8))
    assert head.p == pytest.approx([0.23, 0.31, 0.23, 0.23], abs=5e-7) and head.p.sum() == pytest.approx(1)
    assert np.exp(head.scores(X)) == pytest.approx(np.tile(head.p, (2, 1)))


def test_q_learning_as_worked_out() -> None:
    head = Values.cold(4, REWARD, start=0.0, step=0.3)
    head.learn(told(2, 0.8))
    assert head.q == pytest.approx([0, 0, 0.24, 0], abs=5e-7)


@given(STEPS, st.floats(0.001, 1))
def test_the_automaton_stays_on_the_simplex(steps: list[tuple[int, float, float]], step: float) -> None:
    head = Automaton.cold(3, REWARD, step)
    for member, quality, cost in steps:
        head.learn(told(member, quality, cost))
        assert head.p.sum() == pytest.approx(1) and (head.p >= 0).all()


@pytest.mark.parametrize(("step", "quality", "cost"), [(0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.2, 0.9)])
def test_no_reward_or_no_step_changes_nothing(step: float, quality: float, cost: float) -> None:
    head = Automaton.cold(3, REWARD, step)
    head.learn(told(1, quality, cost))
    assert head.p == pytest.approx([1 / 3] * 3)


def test_the_better_of_two_grows_on_average() -> None:
    even = Automaton(np.array([0.5, 0.5]), Weighted(), 0.2)
    after = np.zeros(2)
    for member, quality in ((0, 0.9), (1, 0.4)):
        head = Automaton(even.p.copy(), Weighted(), 0.2)
        head.learn(told(member, quality))
        after += 0.5 * head.p
    assert after == pytest.approx([0.5 + 0.2 * 0.25 * 0.5, 0.5 - 0.2 * 0.25 * 0.5])


def test_a_settled_automaton_rests() -> None:
    head = Automaton(np.array([0.995, 0.005]), Weighted(), 0.5)
    head.learn(told(1, 1.0))
    assert head.p.tolist() == [0.995, 0.005]


@given(STEPS)
def test_values_are_means_of_their_own_rewards_alone(steps: list[tuple[int, float, float]]) -> None:
    head = Values.cold(3, REWARD)
    for member, quality, cost in steps:
        head.learn(told(member, quality, cost))
    for m in range(3):
        own = [REWARD.of(quality, cost) for member, quality, cost in steps if member == m]
        assert head.q[m] == pytest.approx(np.mean(own) if own else 1.0)
        assert head.counts[m] == len(own)


def test_what_nobody_has_tried_is_tried_first() -> None:
    head = Values.cold(3, Weighted())
    for member in (0, 1):
        head.learn(told(member, 1.0))
    upper = head.scores(X) + head.spread(X)
    assert upper[0].argmax() == 2


def test_ucb1_as_its_formula() -> None:
    head = Values(np.array([0.5, 0.7]), np.array([4.0, 6.0]), Weighted())
    assert head.spread(X)[0] == pytest.approx(np.sqrt(2 * np.log(10) / np.array([4, 6])))


def test_thompson_is_as_wide_as_a_beta_distribution() -> None:
    head = Values(np.array([1.0, 0.5]), np.array([0.0, 10.0]), Weighted(), by="thompson")
    assert head.spread(X)[0] == pytest.approx(np.sqrt([1 / 12, 36 / 144 / 13]))


def test_new_members() -> None:
    assert Automaton.cold(3, Weighted()).widen(X, np.ones(2)).p == pytest.approx([0.25] * 4)
    wide = Values(np.array([0.5]), np.array([4.0]), Weighted()).widen(X, np.array([1.0, 0.0]))
    assert (wide.q.tolist(), wide.counts.tolist()) == ([0.5, 0.5], [4, 2])
    assert Constant(np.array([1.0, 3.0])).widen(X, np.ones(2)).values.tolist() == [1, 3, 2]
