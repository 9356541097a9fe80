"""Tags of queries by their embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.targets.tags import NearestTags, RankedTags, centroids, classified, clustered, rank_shares
from tests.ensemble.before.toys import table


def at(*distances: float) -> np.ndarray:
    """Unit centres at these distances from (1, 0, 0 …)."""
    cosine = 1 - np.array(distances)
    centres = np.zeros((len(distances), len(distances) + 1))
    centres[:, 0] = cosine
    centres[np.arange(len(distances)), np.arange(len(distances)) + 1] = np.sqrt(1 - cosine**2)
    return centres


def test_weights_of_the_nearest_centres() -> None:
    """Avengers-Pro: distances 0.1, 0.3, 0.5, sharpness 9."""
    weights = NearestTags(at(0.5, 0.1, 0.3), 3, 9.0).weights(np.eye(4)[:1])[0]
    assert weights == pytest.approx((0.022911, 0.838488, 0.138601), abs=5e-7)


def test_great_sharpness_is_the_nearest_alone() -> None:
    tagger = NearestTags(at(0.5, 0.1, 0.3), 3, 1e4)
    assert tagger.weights(np.eye(4)[:1])[0] == pytest.approx((0, 1, 0))
    assert tagger.credit(np.eye(4)[:1])[0].tolist() == [0.0, 1.0, 0.0]


def test_far_centres_do_not_count() -> None:
    weights = NearestTags(at(0.5, 0.1, 0.3), 2, 0.0).weights(np.eye(4)[:1])[0]
    assert weights.tolist() == [0.0, 0.5, 0.5]


@given(st.integers(1, 6), st.floats(0, 1))
def test_ranked_shares_sum_to_one(count: int, decay: float) -> None:
    shares = rank_shares(count, decay)
    assert shares.sum() == pytest.approx(1)
    assert (np.diff(shares) <= 1e-12).all()


def test_decay_of_zero_and_one() -> None:
    assert rank_shares(3, 0.0).tolist() == [1.0, 0.0, 0.0]
    assert rank_shares(4, 1.0).tolist() == [0.25] * 4


def test_ranked_by_nearness() -> None:
    weights = RankedTags(at(0.5, 0.1, 0.3), 2, 0.5).weights(np.eye(4)[:1])[0]
    assert weights == pytest.approx((0, 0.666667, 0.333333), abs=5e-7)


def test_clusters_are_the_tasks_of_the_toy() -> None:
    training = table(90)
    nearest = (training.x @ clustered(training.x, 3).T).argmax(axis=1)
    for task in range(3):
        assert len(set(nearest[task::3])) == 1
    assert len(set(nearest[:3])) == 3


def test_no_more_clusters_than_queries() -> None:
    assert len(clustered(np.eye(3), 9)) == 3


def test_centroids_are_unit_means() -> None:
    centres = centroids(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 0, 1]))
    assert np.allclose(centres, [[0.5**0.5, 0.5**0.5], [0, 1]])


def test_a_classifier_tells_tasks() -> None:
    training = table(90)
    tags = np.arange(90) % 3
    tagger = classified(training.x, tags, 0.1)
    weights = tagger.weights(training.x)
    assert np.allclose(weights.sum(axis=1), 1)
    assert (weights.argmax(axis=1) == tags).all()
    assert tagger.size == 3
