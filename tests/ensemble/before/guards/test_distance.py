"""The guard by distance."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.guards.distance import Distance, far
from ensemble.before.guards.guard import Guard
from tests.ensemble.before.toys import table


def test_mean_distance_to_the_nearest() -> None:
    store = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], np.float32)
    assert far(np.array([[1.0, 0.0]]), store, 2)[0] == pytest.approx((0 + 0.2) / 2)
    assert far(np.array([[1.0, 0.0]]), store, 9)[0] == pytest.approx((0 + 0.2 + 1) / 3)


def test_of_queries_like_those_of_the_fit_about_the_share_is_doubted() -> None:
    guard = Distance.fit(table(1000).x, share=0.1)
    assert guard.doubtful(table(1000, seed=1).x).mean() == pytest.approx(0.1, abs=0.05)


def test_queries_of_another_kind_are_doubted() -> None:
    guard = Distance.fit(table(300).x)
    other = np.eye(8)[[5, 6, 7]]
    assert guard.doubtful(other).all()
    assert guard.doubtful(np.zeros((1, 8))).all()


def test_a_query_is_no_neighbour_of_its_own() -> None:
    """Else the limit would lie far below the distances of new queries."""
    guard = Distance.fit(table(300).x, share=0.05, nearest=1)
    assert guard.doubtful(table(300, seed=2).x).mean() < 0.2


def test_back_from_disk_and_equal_seeds() -> None:
    x = table(3000).x
    guard = Distance.fit(x, seed=3)
    assert len(guard.kept) == 2048
    values, tensors = guard.packed()
    fresh = table(50, seed=1).x
    assert np.array_equal(Guard.unpacked(values, tensors).doubtful(fresh), guard.doubtful(fresh))
    assert np.array_equal(Distance.fit(x, seed=3).kept, guard.kept)
