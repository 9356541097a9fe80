"""HomoRouter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.head import Outcome
from ensemble.before.homorouter import HomoRouter, HomoRouterFit
from ensemble.before.policies import Prediction, Within
from tests.ensemble.before.toys import lawful, table

TOLD = Prediction(np.array([[0.62, 0.60, 0.45]]), np.array([[5.0, 1.0, 0.5]]))


def chosen(delta: float) -> int:
    return int(Within(delta=delta).choose(TOLD, np.ones((1, 3), bool), np.random.default_rng(0)).chosen[0])


@pytest.mark.parametrize("options", [{}, {"ranking": 0.0}, {"penalty": 1.0, "ranking": 1.0}], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, HomoRouter, HomoRouterFit(**options), tolerance=2e-2)


@pytest.mark.parametrize(("delta", "member"), [(0.0, 0), (0.03, 1), (0.2, 2), (0.17 + 1e-9, 2)])
def test_the_cheapest_within_delta(delta: float, member: int) -> None:
    assert chosen(delta) == member


@given(st.floats(0, 1), st.floats(0, 1))
def test_cost_and_score_fall_with_delta(one: float, other: float) -> None:
    less, more = chosen(min(one, other)), chosen(max(one, other))
    assert TOLD.cost[0, more] <= TOLD.cost[0, less]
    assert TOLD.quality[0, more] <= TOLD.quality[0, less]


def test_the_best_answers_unless_the_policy_says_otherwise() -> None:
    assert Within() == HomoRouter.policy
    assert Within().delta == 0


def test_ranking_sets_the_members_further_apart() -> None:
    training = table()

    def lead(ranking: float) -> float:
        told = HomoRouter.fit(training, HomoRouterFit(penalty=30.0, ranking=ranking, margin=1.0)).predict(training.x)
        scores = np.sort(told.quality, axis=1)
        return float((scores[:, -1] - scores[:, -2]).mean())

    assert lead(2.0) > lead(0.0) + 0.02


def test_an_outcome_moves_its_member_alone() -> None:
    training = table()
    router = HomoRouter.fit(training, HomoRouterFit())
    before = router.predict(training.x).quality
    router.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    after = router.predict(training.x).quality
    assert after[0, 1] > before[0, 1]
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])
