"""Draws: in the proportions that are told."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from ensemble.before.policies import Prediction, Sample
from ensemble.before.policies.normal import probability_largest
from ensemble.errors import ConfigurationError

MANY = 20_000
ONE = Prediction(
    np.tile([0.5, 0.6, 0.9, 0.4], (MANY, 1)),
    np.tile([0.0, 0.0, 3.0, 0.0], (MANY, 1)),
    np.tile([0.2, 0.1, 0.3, 0.05], (MANY, 1)),
)
ALLOWED = np.tile([True, True, True, False], (MANY, 1))


@pytest.mark.parametrize(
    "decided",
    [
        Sample(),
        Sample(price=0.1),
        Sample(by="epsilon", epsilon=0.3),
        Sample(by="thompson", price=0.1),
        Sample(by="thompson", spread=2.0),
    ],
    ids=str,
)
def test_the_propensity_is_how_often_that_one_is_drawn(decided: Sample) -> None:
    choice = decided.choose(ONE, ALLOWED, np.random.default_rng(3))
    for member in np.unique(choice.chosen):
        drawn = choice.chosen == member
        assert np.ptp(choice.propensity[drawn]) < 1e-12
        # Five standard deviations of a share.
        told = choice.propensity[drawn][0]
        assert abs(drawn.mean() - told) < 5 * np.sqrt(told * (1 - told) / MANY) + 1e-9
    assert sum(choice.propensity[choice.chosen == m][0] for m in np.unique(choice.chosen)) == pytest.approx(1, abs=1e-4)


def test_softmax_is_the_published_one() -> None:
    odds = np.exp(np.array([0.5, 0.6, 0.9]) / 0.1)
    choice = Sample().choose(ONE, ALLOWED, np.random.default_rng(0))
    assert choice.propensity == pytest.approx((odds / odds.sum())[choice.chosen], abs=1e-9)


def test_a_bound_is_taken_without_a_draw() -> None:
    choice = Sample(by="ucb", price=0.3, spread=2.0).choose(ONE, ALLOWED, np.random.default_rng(0))
    # .9, .8 and .9 - .9 + .6
    assert (choice.chosen == 0).all() and (choice.propensity == 1).all()


def test_equal_seeds_draw_equally() -> None:
    one, same, other = (Sample().choose(ONE, ALLOWED, np.random.default_rng(seed)).chosen for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize("by", ["thompson", "ucb"])
def test_without_a_spread_there_is_nothing_to_draw_around(by: Literal["thompson", "ucb"]) -> None:
    plain = Prediction(np.ones((1, 2)), np.zeros((1, 2)))
    with pytest.raises(ConfigurationError, match="allowed: softmax, epsilon"):
        Sample(by=by).choose(plain, np.ones((1, 2), bool), np.random.default_rng(0))


def test_of_two_normal_values_the_closed_form_holds() -> None:
    # P(a > b) = Φ((μa - μb) ÷ √(σa² + σb²)) with Φ(.447214) = .672640
    mean, std = np.array([[0.7, 0.6], [0.7, 0.6]]), np.array([[0.2, 0.1], [0.0, 0.0]])
    told = probability_largest(mean, std, np.ones((2, 2), bool), np.array([0, 0]))
    assert told == pytest.approx([0.672640, 1.0], abs=1e-6)
