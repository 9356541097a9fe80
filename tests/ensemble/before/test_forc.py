"""FORC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.before.forc import Forc, ForcFit
from ensemble.before.heads.head import Outcome
from ensemble.before.policies import Assign, Enough, Prediction
from tests.ensemble.before.toys import lawful, table


@pytest.mark.parametrize("calibration", ["none", "platt"])
def test_laws_of_all_routers(tmp_path: Path, calibration: str) -> None:
    lawful(tmp_path, Forc, ForcFit(calibration=calibration, penalty=1.0), tolerance=2e-2)


def test_the_cheapest_that_will_do() -> None:
    told = Prediction(np.array([[0.6, 0.9], [0.4, 0.9], [0.3, 0.2]]), np.tile([1.0, 10.0], (3, 1)))
    allowed, random = np.ones((3, 2), bool), np.random.default_rng(0)
    assert Forc.policy.choose(told, allowed, random).chosen.tolist() == [0, 1, 0]
    assert Enough(fallback="dearest").choose(told, allowed, random).chosen.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("budget", "objective", "upgraded"), [(4, 1.8, []), (13, 2.4, [1]), (22, 2.6, [1, 3]), (40, 2.7, [0, 1, 2, 3])]
)
def test_a_batch_under_a_budget(budget: float, objective: float, upgraded: list[int]) -> None:
    quality = np.array([[0.9, 0.95], [0.2, 0.8], [0.6, 0.65], [0.1, 0.3]])
    told = Prediction(quality, np.tile([1.0, 10.0], (4, 1)))
    chosen = Assign(budget=budget / 4).choose(told, np.ones((4, 2), bool), np.random.default_rng(0)).chosen
    assert quality[np.arange(4), chosen].sum() == pytest.approx(objective)
    assert np.flatnonzero(chosen).tolist() == upgraded


def test_probabilities_are_those_of_outcomes() -> None:
    training, fresh = table(900), table(900, seed=1)
    told = Forc.fit(training, ForcFit(penalty=100.0)).predict(fresh.x).quality
    sure = told > 0.7
    assert fresh.table.quality[sure].mean() == pytest.approx(told[sure].mean(), abs=0.05)


def test_an_outcome_moves_its_member_alone() -> None:
    training = table()
    router = Forc.fit(training, ForcFit())
    before = router.predict(training.x).quality
    router.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    after = router.predict(training.x).quality
    assert after[0, 1] > before[0, 1]
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])
