"""Bench-CoE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.bench_coe import BenchCoe, BenchCoeFit
from ensemble.before.heads.clusters import TagMeans
from ensemble.before.heads.head import Outcome
from tests.ensemble.before.toys import lawful, plain, reached, table

FORMS = [
    {"level": level, "labels": labels, "penalty": 0.1} for level in ("subject", "query") for labels in ("soft", "hard")
]


@pytest.mark.parametrize("options", [*FORMS, {"level": "query", "beta": 0.3}], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, BenchCoe, BenchCoeFit(**options), tolerance=2e-2)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_one_subject_is_the_best_single_member(labels: str) -> None:
    training = table(tasks=1, members=4)
    told = BenchCoe.fit(training, BenchCoeFit(labels=labels)).predict(training.x).quality
    assert (told.argmax(axis=1) == training.table.best).all()


def test_a_perfect_classifier_reaches_the_task_oracle() -> None:
    training = table()
    oracle = np.mean([training.table.quality[t::3].mean(axis=0).max() for t in range(3)])
    assert reached(BenchCoe.fit(training, BenchCoeFit(penalty=0.01)), training) == pytest.approx(oracle)


def test_queries_that_nobody_gets_right_say_nothing_under_hard_labels() -> None:
    training = table()
    quality = np.vstack([training.table.quality, np.zeros((240, 3))])
    wrong = plain(np.vstack([training.x, training.x]), quality)
    alone = plain(training.x, training.table.quality)
    options = BenchCoeFit(level="query", labels="hard", penalty=1.0)
    told = [BenchCoe.fit(part, options).predict(training.x).quality for part in (alone, wrong)]
    assert np.allclose(*told, atol=2e-2)


def test_clusters_stand_for_subjects_that_are_not_told() -> None:
    training = table()
    told = replace(training, table=replace(training.table, tasks=("",) * 240))
    assert reached(BenchCoe.fit(told, BenchCoeFit(subjects=3, penalty=0.1)), table(seed=1)) > 0.8


def test_an_outcome_moves_the_means_of_its_member_alone() -> None:
    training = table()
    router = BenchCoe.fit(training, BenchCoeFit())
    assert isinstance(router.head, TagMeans)
    before = router.head.means
    for _ in range(40):
        router.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    after = router.head.means
    assert after[0, 1] > before[0, 1] + 0.1
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])
