"""Zooter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.heads.distilled import Distilled
from ensemble.before.heads.head import Outcome
from ensemble.before.zooter import Zooter, ZooterFit, labels
from tests.ensemble.before.toys import lawful, reached, table


@pytest.mark.parametrize("options", [{}, {"beta": 1.0, "penalty": 1.0}, {"beta": 0.0, "temperature": 1.0}], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, Zooter, ZooterFit(**options), tolerance=2e-2)


def test_labels_of_one_tag_are_one_without_the_query() -> None:
    quality, tags = table().table.quality, np.arange(240) % 3
    label = labels(quality, tags, 0.0, 0.2)
    assert np.allclose(label[tags == 1], label[1])
    assert np.allclose(label.sum(axis=1), 1)
    plain = labels(quality, tags, 1.0, 0.2)
    assert not np.allclose(plain[tags == 1], plain[1])


def test_the_scale_of_the_rewards_does_not_matter() -> None:
    quality, tags = table(graded=True).table.quality, np.arange(240) % 3
    assert np.allclose(labels(7 * quality + 3, tags, 0.3, 0.2), labels(quality, tags, 0.3, 0.2))


def test_a_price_turns_to_the_cheap() -> None:
    training = table()
    dear = Zooter.fit(training, ZooterFit(price=10.0)).predict(training.x).quality
    assert (dear.argmax(axis=1) == 0).all()


def test_clusters_stand_for_tags_that_are_not_told() -> None:
    training = table()
    told = replace(training, table=replace(training.table, tasks=("",) * 240))
    assert reached(Zooter.fit(told, ZooterFit(tags=3)), table(seed=1)) > 0.8


def test_outcomes_turn_the_choice() -> None:
    training = table()
    router = Zooter.fit(training, ZooterFit())
    x = training.x[:1]
    assert router.predict(x).quality[0].argmax() == 0
    for _ in range(300):
        router.learn(Outcome(x=x[0], member=0, quality=0.0))
        router.learn(Outcome(x=x[0], member=1, quality=1.0))
    assert router.predict(x).quality[0].argmax() == 1
    assert isinstance(router.head, Distilled)
    assert router.head.tags.means[0, 1] > 0.8
