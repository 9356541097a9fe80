"""Rated: ratings of a model that is asked become scores."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.rated import Rated

FAIR = np.array([0.1, 0.1, 0.2, 0.3, 0.3])
POOR = np.array([0.5, 0.2, 0.2, 0.1, 0.0])


def test_a_member_is_good_enough_from_a_rating_on() -> None:
    head = Rated(np.array([0.9, 0.5]), strong=0)
    assert head.rated(np.stack([POOR, FAIR])) == pytest.approx([0.4, 0.6])
    assert Rated(np.array([0.9, 0.5]), strong=0, least=3).rated(np.stack([POOR, FAIR])) == pytest.approx([0.2, 0.8])


def test_the_strong_one_stands_for_the_best_of_the_others() -> None:
    head = Rated(np.zeros(3), strong=1)
    assert head.rated(np.stack([POOR, FAIR, FAIR])) == pytest.approx([0.1, 0.4, 0.6])


def test_without_ratings_the_strong_one_is_first() -> None:
    assert Rated(np.zeros(3), strong=1).scores(np.zeros((2, 4))).argmax(axis=1).tolist() == [1, 1]
