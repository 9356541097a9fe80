"""Calibrated weights: what generated the labels is found again, and nothing is made worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.errors import ConfigurationError
from ensemble.fitting.packllm import Calibration, fit, weights


@given(st.floats(0.05, 2), st.lists(st.floats(-1, 1), min_size=2, max_size=4), st.integers(0, 99))
@settings(max_examples=15)
def test_what_made_the_labels_is_found_again(tau: float, offsets: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    losses = random.normal(2, 1, size=(4000, len(offsets))) + offsets
    chances = weights(losses, Calibration(tau, tuple(offsets)))
    labels = (chances.cumsum(1) < random.uniform(size=(len(losses), 1))).sum(1).clip(max=len(offsets) - 1)
    found = fit(losses, labels)
    assert found.tau == pytest.approx(tau, rel=0.25)
    np.testing.assert_allclose(found.offsets, np.array(offsets) - np.mean(offsets), atol=0.25 * (1 + tau))


def test_a_calibration_is_never_worse_than_none_on_what_it_was_fitted_to() -> None:
    random = np.random.default_rng(0)
    losses, labels = random.uniform(0, 3, size=(300, 3)), random.integers(0, 3, size=300)
    plain = weights(losses, Calibration(1.0, (0.0, 0.0, 0.0)))
    found = weights(losses, fit(losses, labels))
    picked = np.arange(300), labels
    assert np.log(found[picked]).mean() > np.log(plain[picked]).mean()


def test_losses_that_tell_everything_end_at_a_sharpest_tau() -> None:
    losses = np.array([[0.0, 1.0], [1.0, 0.0]] * 50)
    found = fit(losses, np.array([0, 1] * 50))
    assert found.tau >= 1e-3
    assert weights(losses, found)[0, 0] > 0.99
    assert found.offsets == pytest.approx((0.0, 0.0), abs=1e-6)


def test_the_order_of_members_does_not_matter() -> None:
    random = np.random.default_rng(1)
    losses, labels = random.uniform(0, 3, size=(200, 2)), random.integers(0, 2, size=200)
    one, other = fit(losses, labels), fit(losses[:, ::-1].copy(), 1 - labels)
    assert one.tau == pytest.approx(other.tau, rel=1e-4)
    assert one.offsets == pytest.approx(other.offsets[::-1], abs=1e-4)


def test_a_calibration_takes_prompts() -> None:
    with pytest.raises(ConfigurationError, match="one prompt at least"):
        fit(np.zeros((0, 2)), np.zeros(0, int))
