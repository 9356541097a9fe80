"""CARROT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ensemble.before.carrot import Carrot, CarrotFit
from ensemble.before.heads.head import Outcome
from ensemble.before.policies import Mix, Prediction
from tests.ensemble.before.toys import lawful, table

TOLD = Prediction(np.array([[0.8, 0.7, 0.5]]), np.array([[0.004, 0.001, 0.0002]]))
ALL = np.ones((1, 3), bool)


def scores(mu: float, told: Prediction = TOLD, scale: float = 100) -> np.ndarray:
    return Mix(mu=mu, scale=scale).choose(told, ALL, np.random.default_rng(0)).scores[0]


@pytest.mark.parametrize("estimator", ["ridge", "logistic", "neighbours"])
def test_laws_of_all_routers(tmp_path: Path, estimator: str) -> None:
    lawful(tmp_path, Carrot, CarrotFit(estimator=estimator), tolerance=2e-2)


@pytest.mark.parametrize(
    ("mu", "expected"), [(0.1, (0.68, 0.62, 0.448)), (0.5, (0.2, 0.3, 0.24)), (0.9, (-0.28, -0.02, 0.032))]
)
def test_trades(mu: float, expected: tuple[float, float, float]) -> None:
    assert scores(mu) == pytest.approx(expected)


@given(st.floats(0, 1))
def test_scores_are_linear_in_mu(mu: float) -> None:
    assert scores(mu) == pytest.approx((1 - mu) * scores(0.0) + mu * scores(1.0))
    assert scores(0.0).argmax() == 0
    assert scores(1.0).argmax() == 2


@given(st.floats(0, 0.99))
def test_doubled_prices_are_another_mu(mu: float) -> None:
    doubled = Prediction(TOLD.quality, 2 * TOLD.cost)
    other = 2 * mu / (1 + mu)
    assert scores(mu, doubled).argmax() == scores(other).argmax() or np.ptp(np.sort(scores(other))[-2:]) < 1e-9


def test_cost_is_by_tokens() -> None:
    training = table()
    cost = Carrot.fit(training, CarrotFit(penalty=1.0)).predict(training.x, np.full(240, 5.0)).cost
    assert np.allclose(cost, [0.001, 0.002, 0.004], rtol=1e-6)


def test_outcomes_move_their_member_alone() -> None:
    training = table()
    for estimator in ("ridge", "logistic", "neighbours"):
        router = Carrot.fit(training, CarrotFit(estimator=estimator))
        before = router.predict(training.x[:1]).quality[0]
        router.learn(Outcome(x=training.x[0], member=1, quality=1.0))
        after = router.predict(training.x[:1]).quality[0]
        assert after[1] > before[1]
        assert np.allclose(after[[0, 2]], before[[0, 2]], atol=1e-6)


def test_the_ridge_knows_how_sure_it_is() -> None:
    training = table()
    assert Carrot.fit(training, CarrotFit()).predict(training.x).std is not None


@pytest.mark.parametrize("options", [{"k": 5}, {"estimator": "neighbours", "penalty": 1.0}], ids=str)
def test_options_that_the_estimator_does_not_read_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="does not read"):
        CarrotFit(**options)
