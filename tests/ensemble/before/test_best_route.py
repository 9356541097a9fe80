"""BEST-Route: arms are members with a number of samples; the cheapest that is likely to match answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.before.best_route import BestRoute, BestRouteFit
from ensemble.before.fitting.training import Training
from ensemble.before.heads.match import Match
from ensemble.before.policies import Enough, Prediction
from ensemble.errors import BadRequest
from tests.ensemble.before.toys import table

TRAINING = table(240)


def named(*members: str, **change: object) -> Training:
    found = table(240, members=len(members))
    return replace(found, table=replace(found.table, members=members, **change))  # type: ignore[arg-type]


def choose(policy: Enough, prediction: Prediction) -> np.ndarray:
    return policy.choose(prediction, np.ones(prediction.quality.shape, bool), np.random.default_rng(0)).chosen


def test_thresholds_go_from_the_cheapest_to_the_reference() -> None:
    router = BestRoute.fit(TRAINING, BestRouteFit(reference="m2"))
    prediction = router.predict(TRAINING.x, np.full(240, 5.0))
    assert (choose(Enough(least=(1 - 1) / 2), prediction) == 0).all()
    assert (choose(Enough(least=(1 + 1.01) / 2), prediction) == router.best).all() and router.members[
        router.best
    ] == "m2"
    shares = [(choose(Enough(least=least), prediction) == 2).mean() for least in np.linspace(0, 1, 11)]
    assert shares == sorted(shares) and shares[5] not in (0, 1)


def test_quality_holds_at_less_cost() -> None:
    router, fresh = BestRoute.fit(TRAINING, BestRouteFit(reference="m2")), table(240, seed=9)
    chosen = choose(Enough(least=0.7), router.predict(fresh.x, np.full(240, 5.0)))
    rows = np.arange(240)
    assert fresh.table.quality[rows, chosen].mean() >= fresh.table.quality[:, 2].mean()
    assert fresh.table.cost[rows, chosen].mean() < 0.7 * fresh.table.cost[:, 2].mean()


def test_columns_of_several_samples_are_arms() -> None:
    training = named("small", "small@4", "large", "small@2")
    router = BestRoute.fit(training, BestRouteFit(reference="large"))
    head = router.head
    assert isinstance(head, Match) and router.members == training.table.members
    assert head.below.tolist() == [-1, 3, -1, 0]
    scores = router.predict(training.x).quality
    assert (scores[:, 0] <= scores[:, 3]).all() and (scores[:, 3] <= scores[:, 1]).all() and (scores[:, 2] == 1).all()


def test_arms_are_made_of_samples() -> None:
    random = np.random.default_rng(0)
    samples = (random.random((240, 2, 6)) < np.array([0.4, 0.9])[:, None]).astype(float)
    training = named("small", "large", quality=samples.mean(axis=2), samples=samples)
    router = BestRoute.fit(training, BestRouteFit(samples=3, reference="large", penalty=100))
    assert router.members == ("small", "large", "small@2", "small@3", "large@2", "large@3")
    means = router.predict(training.x).quality.mean(axis=0)
    # P(match) = P(large wrong) + P(large right) P(one of n right).
    expected = [0.1 + 0.9 * (1 - 0.6**n) for n in (1, 2, 3)]
    np.testing.assert_allclose(means[[0, 2, 3]], expected, atol=0.04)
    assert (np.diff(router.predict(training.x).quality[:, [0, 2, 3]], axis=1) >= 0).all()


def test_several_samples_cost_several_answers_and_one_prompt() -> None:
    random = np.random.default_rng(0)
    samples = (random.random((240, 2, 4)) < 0.5).astype(float)
    prices = np.array([[1e-4, 1e-4], [2e-4, 2e-4]])
    cost = np.tile([15 * 1e-4, 25 * 2e-4], (240, 1))
    training = named("a", "b", quality=samples.mean(axis=2), samples=samples, prices=prices, cost=cost)
    made = BestRoute.fit(training, BestRouteFit(samples=3)).predict(training.x[:2], np.full(2, 5.0))
    found = dict(zip(made.members, made.cost[0], strict=True))
    assert found["a@3"] == pytest.approx((5 + 30) * 1e-4, rel=0.02)
    assert found["b@2"] == pytest.approx((5 + 40) * 2e-4, rel=0.02)
    unpriced = replace(training, table=replace(training.table, prices=np.full((2, 2), np.nan)))
    plain = BestRoute.fit(unpriced, BestRouteFit(samples=3)).predict(training.x[:2])
    np.testing.assert_allclose(plain.cost[0], [0.0015, 0.005, 0.003, 0.0045, 0.01, 0.015])


def test_a_selector_that_errs_gains_less() -> None:
    rates = np.full((240, 2), 0.5)
    training = named("small", "large", quality=rates)

    def last(selector: float) -> float:
        options = BestRouteFit(samples=4, outcomes="rates", selector=selector, reference="large")
        return float(BestRoute.fit(training, options).predict(training.x).quality[:, 4].mean())

    found = [last(selector) for selector in (0.0, 0.5, 1.0)]
    ends = [0.5 + 0.5 * 0.5, 0.5 + 0.5 * (1 - 0.5**4)]
    np.testing.assert_allclose(found, [ends[0], sum(ends) / 2, ends[1]], atol=0.02)


def test_a_tolerance_makes_more_match() -> None:
    training = named("small", "large", quality=np.tile([0.7, 0.9], (240, 1)))
    strict, loose = (
        BestRoute.fit(training, BestRouteFit(tolerance=t)).predict(training.x).quality[:, 0].mean() for t in (0.1, 0.3)
    )
    assert strict < 0.05 and loose > 0.95


@pytest.mark.parametrize(
    ("training", "options", "why"),
    [
        (named("a", "b"), BestRouteFit(samples=2), "no single samples.*samples 1, or outcomes: rates"),
        (named("a@2", "b@2"), BestRouteFit(), "all columns are of several samples"),
        (named("a", "a@2"), BestRouteFit(reference="a@2"), "allowed: a$"),
    ],
)
def test_what_cannot_be_matched_is_refused(training: Training, options: BestRouteFit, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        BestRoute.fit(training, options)
