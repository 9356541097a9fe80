"""Routing with benchmark data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.heads.head import Outcome
from ensemble.before.heads.trusted import Trusted
from ensemble.before.shnitzer_benchmark_routing import ShnitzerBenchmarkRouting, ShnitzerFit
from tests.ensemble.before.toys import lawful, plain, reached, table

SMALL = {"k": 9, "nearest": 5}


@pytest.mark.parametrize("options", [{}, {"sure": 0.0, "fidelity": "reference"}], ids=str)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, ShnitzerBenchmarkRouting, ShnitzerFit(**SMALL, **options), tolerance=1e-6)


def head(sure: float, **options: object) -> Trusted:
    found = ShnitzerBenchmarkRouting.fit(table(), ShnitzerFit(**SMALL, sure=sure, **options)).head
    assert isinstance(found, Trusted)
    return found


def test_far_from_all_tasks_the_best_on_average_answers() -> None:
    found = head(0.6)
    assert (found.scores(-np.eye(8)[:3]).argmax(axis=1) == found.best).all()


def test_a_task_as_a_whole_goes_to_its_member() -> None:
    found = head(0.6)
    for task in range(3):
        assert found.of_task(table(seed=2).x[task::3])[2].argmax() == task


def test_more_certainty_asks_the_best_on_average_more_often() -> None:
    fresh = table(seed=1).x
    shares = [(head(sure).scores(fresh).argmax(axis=1) == head(sure).best).mean() for sure in (0.0, 0.9, 0.999)]
    assert shares[0] <= shares[1] <= shares[2]
    assert shares[2] > shares[0]


def test_clusters_stand_for_tasks_that_are_not_told() -> None:
    training = table()
    told = replace(training, table=replace(training.table, tasks=("",) * 240))
    router = ShnitzerBenchmarkRouting.fit(told, ShnitzerFit(**SMALL))
    assert reached(router, table(seed=1)) > 0.8


def test_one_task_is_fitted_too() -> None:
    router = ShnitzerBenchmarkRouting.fit(plain(np.eye(4), np.ones((4, 2)), tasks=["a"] * 4), ShnitzerFit(k=1))
    assert router.predict(np.eye(4)).quality.shape == (4, 2)


def test_outcomes_join_the_store() -> None:
    router = ShnitzerBenchmarkRouting.fit(table(), ShnitzerFit(**SMALL, sure=0.0))
    x = table().x[:1]
    before = router.predict(x).quality[0]
    for _ in range(9):
        router.learn(Outcome(x=x[0], member=0, quality=0.0))
    after = router.predict(x).quality[0]
    assert after[0] < before[0] - 0.3
