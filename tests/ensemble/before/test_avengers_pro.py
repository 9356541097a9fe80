"""Avengers-Pro."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.before.avengers_pro import AvengersFit, AvengersPro
from ensemble.before.heads.clusters import TagMeans
from ensemble.before.heads.head import Outcome
from tests.ensemble.before.toys import lawful, table


@pytest.mark.parametrize(
    "options", [{}, {"clusters": 6}, {"clusters": 6, "fidelity": "reference", "balance": 1.0}], ids=str
)
def test_laws_of_all_routers(tmp_path: Path, options: dict[str, object]) -> None:
    lawful(tmp_path, AvengersPro, AvengersFit(**options))


def test_one_cluster_is_the_best_single_member() -> None:
    training = table(members=4)
    for fidelity in ("fixed", "reference"):
        options = AvengersFit(clusters=1, fidelity=fidelity, **({"balance": 1.0} if fidelity == "reference" else {}))
        told = AvengersPro.fit(training, options).predict(training.x).quality
        assert (told.argmax(axis=1) == training.table.best).all()


def test_balance_of_nothing_takes_the_cheapest() -> None:
    training = table(members=4)
    options = AvengersFit(clusters=5, fidelity="reference", balance=0.0)
    assert (AvengersPro.fit(training, options).predict(training.x).quality.argmax(axis=1) == 0).all()


def test_cost_is_of_the_clusters() -> None:
    training = table()
    costs = AvengersPro.fit(training, AvengersFit(clusters=4)).predict(training.x).cost
    assert np.allclose(costs, [0.001, 0.002, 0.004])


def test_an_outcome_counts_for_the_nearest_cluster_of_its_member() -> None:
    training = table()
    head = AvengersPro.fit(training, AvengersFit(clusters=3)).head
    assert isinstance(head, TagMeans)
    before = head.counts.copy()
    head.learn(Outcome(x=training.x[0], member=1, quality=1.0))
    assert (head.counts - before).sum(axis=0).tolist() == [0.0, 1.0, 0.0]
    assert (head.counts != before).sum() == 1


def test_balance_without_ranks_is_refused() -> None:
    with pytest.raises(ValidationError, match="reference"):
        AvengersFit(balance=0.3)
