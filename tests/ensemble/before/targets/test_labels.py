"""Targets of heads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.before.targets import labels as targets

QUALITY = arrays(float, (5, 3), elements=st.floats(0, 1, width=32))
NAN = float("nan")


def kl(label: np.ndarray, told: np.ndarray) -> float:
    return float((label * np.log(label / told)).sum())


def test_rewards_enhanced_by_tags() -> None:
    """ZOOTER: rewards (1, 2, 0), tag means (2, 1, 0), beta 0.3."""
    assert targets.soft(np.array([[1.0, 2.0, 0.0]]), 1.0)[0] == pytest.approx((0.244728, 0.665241, 0.090031), abs=5e-7)
    # A second query of the tag, with rewards that make the tag's means (2, 1, 0).
    enhanced = targets.smoothed(np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]]), np.array([0, 0]), 0.3)[:1]
    assert enhanced[0] == pytest.approx((1.7, 1.3, 0))
    label = targets.soft(enhanced, 1.0)[0]
    assert label == pytest.approx((0.539664, 0.361748, 0.098588), abs=5e-7)
    assert kl(label, np.array([0.5, 0.3, 0.2])) == pytest.approx(0.039166, abs=5e-7)


def test_soft_labels_of_similarities() -> None:
    """TO-Router."""
    near = np.array([[0.82, 0.80, 0.60]])
    assert targets.soft(near, 1.0)[0] == pytest.approx((0.359361, 0.352245, 0.288394), abs=5e-7)
    assert targets.soft(near, 0.1)[0] == pytest.approx((0.518260, 0.424315, 0.057425), abs=5e-7)


@given(QUALITY, st.floats(0.01, 100), st.floats(-5, 5))
def test_soft_labels(quality: np.ndarray, temperature: float, shift: float) -> None:
    label = targets.soft(quality, temperature)
    assert np.allclose(label.sum(axis=1), 1)
    assert np.allclose(targets.soft(quality + shift, temperature), label, atol=1e-9)
    assert np.allclose(targets.soft(quality, 1e9), 1 / 3, atol=1e-6)


@given(QUALITY)
def test_no_temperature_is_the_best_shared(quality: np.ndarray) -> None:
    label = targets.soft(quality, 0.0)
    winners = quality == quality.max(axis=1, keepdims=True)
    assert np.array_equal(label, winners / winners.sum(axis=1, keepdims=True))


def test_holes_have_no_label() -> None:
    label = targets.soft(np.array([[1.0, NAN, 1.0], [NAN, NAN, NAN]]), 0.5)
    assert label[0, [0, 2]].tolist() == [0.5, 0.5]
    assert np.isnan(label[0, 1])
    assert np.isnan(label[1]).all()


def test_the_best_share_and_nobody_is_best_where_all_are_wrong() -> None:
    label = targets.best(np.array([[1.0, 1.0, NAN], [0.0, 0.0, 0.0], [0.2, 0.7, 0.1]]))
    assert label[0, :2].tolist() == [0.5, 0.5]
    assert np.isnan(label[0, 2])
    assert np.isnan(label[1]).all()
    assert label[2].tolist() == [0.0, 1.0, 0.0]


@given(QUALITY)
def test_smoothing_between_the_outcome_and_the_tag(quality: np.ndarray) -> None:
    tags = np.array([0, 1, 0, 1, 1])
    assert np.allclose(targets.smoothed(quality, tags, 1.0), quality)
    flat = targets.smoothed(quality, tags, 0.0)
    assert np.allclose(flat[0], flat[2])
    assert np.allclose(flat[1], quality[[1, 3, 4]].mean(axis=0))


def test_a_hole_takes_its_tags_mean() -> None:
    quality = np.array([[1.0, NAN], [0.0, 0.4], [0.5, NAN]])
    filled = targets.smoothed(quality, np.array([0, 0, 1]), 0.9)
    assert filled[0, 1] == pytest.approx(0.4)
    assert np.isnan(filled[2, 1])


def test_right_from_a_threshold_on() -> None:
    assert targets.right(np.array([[0.5, 0.4]]))[0].tolist() == [1.0, 0.0]
    assert np.isnan(targets.right(np.array([[NAN]]))[0, 0])
    assert targets.right(np.array([[0.5, 0.4]]), None)[0].tolist() == [0.5, 0.4]


def test_reward_in_units_of_the_dearest_member() -> None:
    quality, cost = np.array([[1.0, 1.0]]), np.array([[2.0, 4.0]])
    assert targets.reward(quality, cost, 0.5)[0].tolist() == [0.75, 0.5]
    assert targets.reward(quality, cost, 0.5, scale=1.0)[0].tolist() == [0.0, -1.0]
    assert targets.reward(quality, np.full((1, 2), NAN), 0.0) is quality


def test_gap_of_two() -> None:
    assert targets.gap(np.array([[1.0, 0.25], [NAN, 1.0]]), 0, 1)[0] == 0.75
    assert np.isnan(targets.gap(np.array([[NAN, 1.0]]), 0, 1)[0])


def test_scale_is_the_spread_of_what_was_observed() -> None:
    assert targets.scale(np.array([[0.0, 1.0], [NAN, NAN]])) == 0.5
    assert targets.scale(np.ones((2, 2))) == 1.0
    assert targets.scale(np.full((1, 1), NAN)) == 1.0


def test_tasks_are_numbered_by_name() -> None:
    places, names = targets.numbered(("b", "a", "b"))
    assert places.tolist() == [1, 0, 1]
    assert names == ("a", "b")
