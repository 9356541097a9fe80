"""A softmax that goes on learning from what its labels were made of."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.heads.clusters import TagMeans
from ensemble.before.heads.distilled import Distilled
from ensemble.before.heads.head import Outcome
from ensemble.before.heads.linear import Softmax
from ensemble.before.targets.tags import NearestTags
from tests.ensemble.before.toys import table


def made(beta: float = 0.3, rate: float = 0.05) -> Distilled:
    training = table()
    tags = TagMeans.of(NearestTags(np.eye(8)[:3], 1, 0.0), training.x, training.table.quality)
    return Distilled(Softmax(np.zeros((9, 3)), rate), tags, beta, 0.2)


def test_an_outcome_moves_its_tag_and_its_member_alone() -> None:
    head = made()
    before = head.tags.means.copy()
    x = table().x[0]
    head.learn(Outcome(x=x, member=1, quality=1.0))
    changed = head.tags.means != before
    assert changed[0].tolist() == [False, True, False]
    assert not changed[1:].any()


def test_the_student_moves_towards_the_label_of_the_outcome() -> None:
    lucky, unlucky = made(1.0), made(1.0)
    x = table().x[:1]
    lucky.learn(Outcome(x=x[0], member=1, quality=1.0))
    unlucky.learn(Outcome(x=x[0], member=1, quality=0.0))
    assert lucky.scores(x)[0, 1] > 1 / 3 > unlucky.scores(x)[0, 1]


def test_rarely_drawn_outcomes_count_more_up_to_ten_times() -> None:
    def moved(propensity: float) -> float:
        head = made(0.3)
        x = table().x[:1]
        head.learn(Outcome(x=x[0], member=1, quality=1.0, propensity=propensity))
        return float(head.scores(x)[0, 1])

    assert moved(1.0) < moved(0.5) < moved(0.1)
    assert moved(0.1) == moved(0.001)


def test_without_a_rate_the_tags_learn_alone() -> None:
    head = made(rate=0.0)
    head.learn(Outcome(x=table().x[0], member=1, quality=1.0))
    assert not head.student.weights.any()


def test_the_means_are_exact_after_many_outcomes() -> None:
    head, training = made(), table(30, seed=4)
    sums = head.tags.sums.copy()
    for row in range(30):
        head.learn(Outcome(x=training.x[row], member=row % 3, quality=0.5))
    # Every query is of the task row % 3.
    assert head.tags.sums - sums == pytest.approx(np.eye(3) * 5.0)
