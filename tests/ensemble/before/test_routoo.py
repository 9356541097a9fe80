"""Routoo: a predictor, and the pool that it is fitted for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.before.policies import Utility
from ensemble.before.routoo import Routoo, RoutooFit
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import reached, table

QUICK = {"width": 16, "epochs": 25, "rate": 0.02, "batch": 64, "noise": 0.02}


def test_the_pool_holds_who_complements_whom() -> None:
    # Of five members on three tasks two pairs are equals: three cover all there is.
    training, fresh = table(300, members=5, tasks=3), table(300, members=5, tasks=3, seed=4)
    quality = training.table.quality.copy()
    quality[:, 3], quality[:, 4] = 0.9 * quality[:, 0], 0.9 * quality[:, 1]
    given = replace(training, table=replace(training.table, quality=quality))
    router = Routoo.fit(given, RoutooFit(pool=3, **QUICK))
    assert router.members == ("m0", "m1", "m2")
    whole = Routoo.fit(given, RoutooFit(**QUICK))
    assert whole.members == given.table.members
    among = replace(fresh, table=fresh.table.among(router.members))
    assert reached(router, among) > fresh.table.means.max() + 0.2


def test_a_pool_of_one_is_the_best_single() -> None:
    training = table(240)
    quality = training.table.quality.copy()
    quality[:, 1] = np.maximum(quality[:, 1], np.arange(240) % 2)
    given = replace(training, table=replace(training.table, quality=quality))
    assert Routoo.fit(given, RoutooFit(pool=1, **QUICK)).members == ("m1",)


def test_the_selector_is_quality_less_cost() -> None:
    training = table(240)
    prediction = Routoo.fit(training, RoutooFit(**QUICK)).predict(training.x, np.full(240, 5.0))
    everyone, random = np.ones(prediction.quality.shape, bool), np.random.default_rng(0)
    costs = [
        prediction.cost[np.arange(240), Utility(price=price).choose(prediction, everyone, random).chosen].mean()
        for price in (0, 100, 1000)
    ]
    assert costs[0] > costs[1] > costs[2] == pytest.approx(prediction.cost.min(axis=1).mean())


def test_a_pool_of_too_few_queries_is_refused() -> None:
    with pytest.raises(BadRequest, match="10 queries or more"):
        Routoo.fit(table(9), RoutooFit(pool=1, **QUICK))
