"""kNN router."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.before.heads.head import Outcome
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.knn_router import KnnFit, KnnRouter
from ensemble.before.policies import Utility
from tests.ensemble.before.toys import lawful, plain, table

X = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
QUALITY = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize("options", [{}, {"k": 9, "weighting": "softmax"}, {"weighting": "similarity"}])
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, KnnRouter, KnnFit(**options), tolerance=1e-6)


def test_utilities_of_two_neighbours() -> None:
    training = plain(X, QUALITY, cost=np.array([0.01, 0.002]))
    router = KnnRouter.fit(training, KnnFit(k=2, pseudo=0.0))
    told = router.predict(np.array([[0.96, 0.28]]))
    choice = Utility(price=100).choose(told, np.ones((1, 2), bool), np.random.default_rng(0))
    assert choice.scores[0] == pytest.approx((0.0, 0.3), abs=1e-6)
    assert choice.chosen[0] == 1


@pytest.mark.parametrize(("price", "chosen"), [(0.0, 0), (1e9, 1)])
def test_no_price_takes_the_best_and_any_price_the_cheapest(price: float, chosen: int) -> None:
    router = KnnRouter.fit(plain(X, QUALITY, cost=np.array([0.01, 0.002])), KnnFit(k=1))
    choice = Utility(price=price).choose(router.predict(X[:1]), np.ones((1, 2), bool), np.random.default_rng(0))
    assert choice.chosen[0] == chosen


def test_one_more_member_leaves_the_others() -> None:
    training = table(costs=False)
    two = KnnRouter.fit(training, KnnFit(k=8)).predict(training.x).quality
    wider = KnnRouter.fit(training, KnnFit(k=8)).widened("late", training.x[:5], np.ones(5)).predict(training.x)
    assert np.allclose(wider.quality[:, :3], two, atol=1e-6)


def test_k_is_large_where_members_are_alike() -> None:
    random = np.random.default_rng(0)
    quality = (random.random((300, 2)) < [0.5, 0.6]).astype(float)
    head = KnnRouter.fit(plain(random.standard_normal((300, 6)), quality), KnnFit()).head
    assert isinstance(head, Neighbours)
    assert head.k >= 16


def test_the_cap_keeps_the_last() -> None:
    training = table()
    head = KnnRouter.fit(training, KnnFit(k=4, cap=10)).head
    assert isinstance(head, Neighbours)
    assert np.array_equal(head.x, training.x[-10:])
    head.learn(Outcome(x=training.x[0], member=0, quality=1.0))
    assert np.array_equal(head.x[:9], training.x[-9:])


def test_a_temperature_without_the_weighting_that_reads_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="softmax"):
        KnnFit(temperature=0.5)
