"""A draw among a few where nobody is sure."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.policies import Prediction, Unsure, policy


def chosen(quality: list[float], allowed: list[bool] | None = None, n: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    rows = np.tile(quality, (n, 1))
    may = np.ones(rows.shape, bool) if allowed is None else np.tile(allowed, (n, 1))
    choice = Unsure().choose(Prediction(rows, np.zeros(rows.shape)), may, np.random.default_rng(0))
    return np.bincount(choice.chosen, minlength=len(quality)) / n, choice.propensity


def test_each_of_the_top_three_alike() -> None:
    """Lessons learned: confidences 0.55, 0.58, 0.20 are at most 0.60."""
    share, propensity = chosen([0.55, 0.58, 0.20])
    assert share == pytest.approx([1 / 3] * 3, abs=0.03)
    assert np.allclose(propensity, 1 / 3)


def test_who_is_sure_answers() -> None:
    share, propensity = chosen([0.7, 0.58, 0.2])
    assert share.tolist() == [1.0, 0.0, 0.0]
    assert (propensity == 1).all()


def test_the_fourth_and_the_barred_are_not_drawn() -> None:
    assert chosen([0.5, 0.4, 0.3, 0.2])[0][3] == 0
    share, propensity = chosen([0.5, 0.4, 0.3, 0.2], [True, False, False, True])
    assert share == pytest.approx([0.5, 0, 0, 0.5], abs=0.03)
    assert np.allclose(propensity, 0.5)


def test_by_its_kind() -> None:
    assert policy({"kind": "unsure", "least": 0.3}) == Unsure(least=0.3)
