"""InferenceDynamics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.fitting.training import Training
from ensemble.before.heads.clusters import TagMeans
from ensemble.before.heads.head import Outcome
from ensemble.before.inferencedynamics import DynamicsFit, InferenceDynamics
from ensemble.before.policies import Utility
from ensemble.before.targets.tags import RankedTags, rank_shares
from tests.ensemble.before.toys import lawful, plain, table


def untagged(training: Training) -> Training:
    return replace(training, table=replace(training.table, tasks=("",) * len(training.table)))


@pytest.mark.parametrize("options", [{}, {"knowledge": 5, "decay": 0.0}], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, InferenceDynamics, DynamicsFit(**options))


def test_refined_scores() -> None:
    """s 0.8, c 0.001, price 100, decay 0.5, two needs: 0.7, of which the needs get 0.466667 and 0.233333."""
    training = plain(np.eye(2), np.array([[0.8], [0.8]]), cost=np.array([0.001]))
    options = DynamicsFit(elements=2, knowledge=2, decay=0.5, pseudo=0.0)
    told = InferenceDynamics.fit(training, options).predict(np.array([[0.9, 0.1]]))
    choice = Utility(price=100).choose(told, np.ones((1, 1), bool), np.random.default_rng(0))
    assert choice.scores[0, 0] == pytest.approx(0.7)
    assert choice.scores[0, 0] * rank_shares(2, 0.5) == pytest.approx((0.466667, 0.233333), abs=5e-7)


def test_profiles_are_means_by_share() -> None:
    """Two needs of shares 2/3 and 1/3: a query counts twice as much for its first."""
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    head = TagMeans.of(RankedTags(np.eye(2), 2, 0.5), x, np.array([[1.0], [0.0]]))
    assert head.means[:, 0] == pytest.approx((2 / 3, 1 / 3))
    assert head.scores(x)[:, 0] == pytest.approx((5 / 9, 4 / 9))


def test_one_element_that_all_share_is_the_best_single_member() -> None:
    training = untagged(table(members=4))
    told = InferenceDynamics.fit(training, DynamicsFit(knowledge=1)).predict(training.x).quality
    assert np.allclose(told, training.table.means)


def test_without_tasks_there_is_knowledge_alone() -> None:
    router = InferenceDynamics.fit(untagged(table()), DynamicsFit(knowledge=3))
    assert router.head.kind == "tag-means"
    assert InferenceDynamics.fit(table(), DynamicsFit()).head.kind == "blend"


def test_an_outcome_moves_its_member_alone() -> None:
    training = table()
    router = InferenceDynamics.fit(training, DynamicsFit())
    before = router.predict(training.x[:1]).quality[0]
    router.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    after = router.predict(training.x[:1]).quality[0]
    assert after[1] > before[1]
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
