"""Figures of choices and of predictions."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from ensemble.outcomes.measures import against_best, brier, calibration_error, entropy, reached, shares

OUTCOMES = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], float)
CHOICES = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]])


def test_the_worked_example_of_routereval() -> None:
    chosen = CHOICES.argmax(axis=1)
    assert reached(OUTCOMES, chosen) == 1.0
    assert OUTCOMES.mean(axis=0).max() == 0.5
    assert against_best(OUTCOMES, chosen) == 2.0
    assert entropy(CHOICES) == pytest.approx(1.242897, abs=5e-7)


def test_entropy_ranges_from_one_member_to_all() -> None:
    assert entropy(np.eye(4)) == 0
    assert entropy(np.full((3, 8), 1 / 8)) == pytest.approx(3)


def test_traffic_shares_add_up_and_count_members_nobody_chose() -> None:
    assert shares(np.array([0, 2, 2, 0]), 4).tolist() == [0.5, 0, 0.5, 0]


def test_brier_and_calibration_error_over_observed_cells() -> None:
    predicted = np.array([[0.9, 0.1], [0.8, 0.25]])
    quality = np.array([[1.0, np.nan], [0.0, 0.25]])
    assert brier(predicted, quality) == pytest.approx((0.01 + 0.64) / 3)
    # Bins of a tenth: 0.9 alone is 0.1 off, 0.8 alone 0.8, 0.25 is right.
    assert calibration_error(predicted, quality) == pytest.approx((0.1 + 0.8) / 3)
    # In one bin the mean prediction 0.65 stands against the mean outcome 0.41666….
    assert calibration_error(predicted, quality, bins=1) == pytest.approx(1.95 / 3 - 1.25 / 3)
    assert isnan(brier(predicted, np.full((2, 2), np.nan)))
    assert isnan(calibration_error(predicted, np.full((2, 2), np.nan)))


def test_the_ends_of_the_scale_are_in_the_outer_bins() -> None:
    assert calibration_error(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]])) == 0
