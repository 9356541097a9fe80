"""TO-Router."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.before.targets.labels import soft
from ensemble.before.to_router import ToRouter, ToRouterFit
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import lawful, plain, table


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0, "penalty": 1.0}], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, ToRouter, ToRouterFit(**options), tolerance=2e-2)


def test_probabilities_sum_to_one() -> None:
    training = table()
    told = ToRouter.fit(training, ToRouterFit()).predict(training.x).quality
    assert np.allclose(told.sum(axis=1), 1)


def test_the_cross_entropy_is_least_at_the_label() -> None:
    label = soft(np.array([[0.82, 0.80, 0.60]]), 0.1)[0]
    random = np.random.default_rng(0)
    others = random.dirichlet(np.ones(3), 200)
    assert (-(label * np.log(others)).sum(axis=1) > -(label * np.log(label)).sum()).all()


def test_queries_without_kind_get_the_mean_label() -> None:
    quality = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    told = ToRouter.fit(plain(np.zeros((4, 2)), quality), ToRouterFit(temperature=0.0)).predict(np.zeros((1, 2)))
    assert told.quality[0] == pytest.approx((0.75, 0.25), abs=1e-3)


def test_a_price_turns_to_the_cheap() -> None:
    training = table()
    told = ToRouter.fit(training, ToRouterFit(price=10.0)).predict(training.x).quality
    assert (told.argmax(axis=1) == 0).all()


def test_members_that_never_met_are_refused() -> None:
    quality = np.array([[1.0, np.nan], [np.nan, 0.0]])
    with pytest.raises(BadRequest, match="two members"):
        ToRouter.fit(plain(np.eye(2), quality), ToRouterFit())
