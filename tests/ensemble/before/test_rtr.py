"""RTR: pairs of a model and a strategy, how right and how long their answers are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.costs.by_length import LengthCosts
from ensemble.before.fitting.training import Training
from ensemble.before.policies import Mix, Prediction
from ensemble.before.routing.router import Router, keep, kept
from ensemble.before.rtr import Rtr, RtrFit
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table

QUICK = {"width": 16, "epochs": 30, "rate": 0.02, "batch": 64, "noise": 0.02}
PAIRS = ("a|direct", "a|steps", "b|direct", "b|steps")


def training(**given: object) -> Training:
    found = table(240, members=4, tasks=4)
    return replace(found, table=replace(found.table, members=PAIRS, **given))  # type: ignore[arg-type]


def costs(router: Router) -> LengthCosts:
    assert isinstance(router.costs, LengthCosts)
    return router.costs


@pytest.mark.parametrize(
    ("weight", "scores"),
    [(0.9, [0.71, 0.74, 0.535]), (0.7, [0.33, 0.52, 0.405]), (0.5, [-0.05, 0.30, 0.275])],
)
def test_the_worked_example(weight: float, scores: list[float]) -> None:
    prediction = Prediction(np.array([[0.9, 0.85, 0.6]]), np.array([[2000, 500, 100]]) / 2000)
    found = Mix(mu=1 - weight).choose(prediction, np.ones((1, 3), bool), np.random.default_rng(0))
    assert found.scores[0].round(6).tolist() == scores and found.chosen[0] == 1


def test_the_ends_are_the_likeliest_and_the_shortest() -> None:
    given = training()
    router = Rtr.fit(given, RtrFit(cost="tokens", **QUICK))
    prediction = router.predict(given.x)
    everyone, random = np.ones(prediction.quality.shape, bool), np.random.default_rng(0)
    likeliest, shortest = (Mix(mu=mu).choose(prediction, everyone, random).chosen for mu in (0, 1))
    assert np.array_equal(likeliest, prediction.quality.argmax(axis=1))
    assert np.array_equal(shortest, costs(router).lengths(given.x).argmin(axis=1))


def test_lengths_are_near_the_truth_and_never_beyond_it() -> None:
    given = training()
    lengths = costs(Rtr.fit(given, RtrFit(**QUICK))).lengths(given.x)
    assert (lengths >= 0).all() and (lengths <= [10, 20, 40, 80]).all()
    np.testing.assert_allclose(lengths.mean(axis=0), [10, 20, 40, 80], rtol=0.2)


def test_costs_are_money_or_parts_of_the_longest() -> None:
    given = training()
    money, tokens = (Rtr.fit(given, RtrFit(cost=cost, **QUICK)) for cost in (None, "tokens"))
    np.testing.assert_allclose(money.predict(given.x).cost, costs(money).lengths(given.x) * 1e-4)
    np.testing.assert_allclose(tokens.predict(given.x).cost, costs(tokens).lengths(given.x) / 80)
    unpriced = Rtr.fit(training(prices=np.full((4, 2), np.nan)), RtrFit(**QUICK))
    np.testing.assert_allclose(unpriced.predict(given.x).cost, tokens.predict(given.x).cost)


def test_a_new_pair_is_taken_where_costs_are_money(tmp_path: Path) -> None:
    given = training()
    router = Rtr.fit(given, RtrFit(**QUICK))
    wide = router.widened("c|direct", given.x[:20], np.ones(20), 0.003)
    keep(tmp_path / "wide", "rtr", wide)
    prediction = kept(tmp_path / "wide").predict(given.x)
    np.testing.assert_allclose(prediction.cost[:, 4], 0.003)
    np.testing.assert_array_equal(prediction.cost[:, :4], router.predict(given.x).cost)
    with pytest.raises(BadRequest, match="the table tells no output_tokens of the newcomer"):
        Rtr.fit(given, RtrFit(cost="tokens", **QUICK)).widened("c|direct", given.x[:20], np.ones(20), 0.003)


def test_a_newcomers_length_is_its_mean() -> None:
    given = training()
    router = Rtr.fit(given, RtrFit(cost="tokens", **QUICK))
    lengths = given.table.output_tokens.mean(axis=0)
    told = router.widened("c|direct", given.x[:20], np.ones(20), 0.003, lengths.max()).predict(given.x).cost
    assert told[:, 4] == pytest.approx(1.0)
    np.testing.assert_array_equal(told[:, :4], router.predict(given.x).cost)


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        ({"output_tokens": np.full((240, 4), np.nan)}, {}, "no output_tokens of a|direct, a|steps"),
        ({"prices": np.full((4, 2), np.nan)}, {"cost": "money"}, "allowed without: tokens"),
    ],
)
def test_a_table_that_says_too_little_is_refused(change: dict, options: dict, why: str) -> None:
    with pytest.raises(BadRequest, match=why.replace("|", r"\|")):
        Rtr.fit(training(**change), RtrFit(**QUICK, **options))
