"""Knobs: what they are set to keeps what they were set for, and no cheaper or dearer value does better."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.before.knobs import KNOBS, decided, for_budget, for_drop, for_share, ladder, turned
from ensemble.before.knobs.decided import tokens
from ensemble.before.policies import (
    Assign,
    Enough,
    Mix,
    Policy,
    Prediction,
    Sample,
    Subset,
    Threshold,
    Utility,
    Within,
)
from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Dense

EVERY: list[Policy] = [Utility(), Mix(), Mix(scale=50), Threshold(), Within(), Enough(), Enough(fallback="dearest")]


def table(seed: int = 0, n: int = 200, members: int = 3, known: bool = True) -> tuple[Prediction, Dense]:
    """Dearer members are better on average; predictions are true but for noise."""
    random = np.random.default_rng(seed)
    quality = np.clip(random.random((n, members)) * 0.6 + np.linspace(0, 0.4, members), 0, 1)
    cost = random.uniform(0.5, 1.5, (n, members)) * 4.0 ** np.arange(members) / 1000
    names = tuple(f"m{m}" for m in range(members))
    predicted = Prediction(quality + random.normal(0, 0.1, quality.shape), cost, None, names, members - 1)
    told = np.full_like(cost, np.nan) if not known else cost
    dense = Dense(queries=tuple(map(str, range(n))), texts=("eight ch",) * n, members=names, quality=quality, cost=told)
    return predicted, dense


def mean_cost(policy: Policy, prediction: Prediction, outcomes: Dense) -> float:
    return float(decided("", policy, prediction, outcomes).cost.mean())


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
def test_the_strong_member_answers_its_share(share: float) -> None:
    prediction, outcomes = table()
    found = for_share(Threshold(weak="m0"), prediction, share)
    assert found.weak == "m0"
    taken = decided("", found, prediction, outcomes)
    assert np.mean(taken.chosen == 2) == pytest.approx(share)


def test_equal_gaps_go_together() -> None:
    prediction = Prediction(
        np.array([[1.0, 0.5]] * 3 + [[0.5, 0.5]] * 3), np.tile([2.0, 1.0], (6, 1)), None, ("s", "w")
    )
    found = for_share(Threshold(), prediction, 1 / 3)
    assert found.margin == 0.5


@pytest.mark.parametrize("policy", EVERY, ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["costs observed", "costs predicted"])
def test_a_budget_is_kept_and_used(policy: Policy, known: bool) -> None:
    prediction, outcomes = table(known=known)
    costs = Dense(
        queries=outcomes.queries,
        texts=outcomes.texts,
        members=outcomes.members,
        quality=outcomes.quality,
        cost=prediction.cost,
    )
    for budget in (0.0022, 0.004, 0.009):
        found = for_budget(policy, prediction, outcomes, budget)
        assert type(found) is type(policy)
        # One query more or less at the dearest member moves the mean by 24/1000/200.
        assert budget - 0.0003 < mean_cost(found, prediction, costs) <= budget


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.002, 0.016), st.floats(0.002, 0.016))
def test_more_money_is_never_spent_on_less(seed: int, one: float, other: float) -> None:
    prediction, outcomes = table(seed, n=40)
    low, high = (for_budget(Utility(), prediction, outcomes, budget) for budget in sorted((one, other)))
    assert isinstance(low, Utility) and isinstance(high, Utility) and low.price >= high.price
    assert mean_cost(low, prediction, outcomes) <= mean_cost(high, prediction, outcomes)


def test_a_policy_with_a_budget_is_given_it() -> None:
    prediction, outcomes = table()
    assert for_budget(Assign(budget=1), prediction, outcomes, 0.003) == Assign(budget=0.003)


@pytest.mark.parametrize("policy", EVERY, ids=str)
def test_no_cheaper_step_loses_as_little(policy: Policy) -> None:
    prediction, outcomes = table()
    whole = outcomes.quality[:, 2].mean()
    found = for_drop(policy, prediction, outcomes, 0.05)
    steps = ladder(policy, prediction)
    lost = [1 - decided("", step, prediction, outcomes).quality.mean() / whole for step in steps]
    place = steps.index(found)
    assert lost[place] <= 0.05 and all(later > 0.05 for later in lost[place + 1 :])
    assert mean_cost(found, prediction, outcomes) < outcomes.cost[:, 2].mean()


@pytest.mark.parametrize("policy", EVERY, ids=str)
def test_a_ladder_goes_from_the_dearest_to_the_cheapest(policy: Policy) -> None:
    prediction, outcomes = table(n=50)
    steps = ladder(policy, prediction, 10_000)
    costs = [mean_cost(step, prediction, outcomes) for step in steps]
    # A threshold's dear one is its strong one, whatever that costs.
    assert (np.diff(costs) <= 1e-12).all() or isinstance(policy, Threshold)
    rows = np.arange(50)
    cheapest = prediction.cost[rows, prediction.cost.argmin(axis=1)].mean()
    assert costs[-1] == pytest.approx(cheapest)
    assert len(ladder(policy, prediction, 7)) == 7
    assert ladder(policy, prediction, 7)[0] == steps[0] and ladder(policy, prediction, 7)[-1] == steps[-1]


def test_between_two_steps_nothing_changes() -> None:
    prediction, outcomes = table(n=6)
    steps = [step.price for step in ladder(Utility(), prediction, 10_000) if isinstance(step, Utility)]
    for low, high in pairwise(steps):
        within = (Utility(price=low + part * (high - low)) for part in (0.1, 0.9))
        one, other = (decided("", policy, prediction, outcomes) for policy in within)
        assert one.chosen is not None and other.chosen is not None and (one.chosen == other.chosen).all()


def test_every_knob_can_be_turned() -> None:
    assert {type(policy) for policy in EVERY} == set(KNOBS)
    assert turned(Mix(scale=3), 0.25) == Mix(mu=0.25, scale=3)


REFUSED: dict[str, tuple[Callable[[Prediction, Dense], object], str]] = {
    "a share without a pair": (lambda p, t: for_share(Utility(), p, 0.5), "allowed: a policy of kind threshold"),
    "all the traffic": (lambda p, t: for_share(Threshold(), p, 1.0), "above 0 and below 1"),
    "a pair with a stranger": (lambda p, t: for_share(Threshold(weak="x"), p, 0.5), "there are: m0, m1, m2"),
    "too little money": (lambda p, t: for_budget(Utility(), p, t, 1e-5), "the cheapest choices of this policy cost"),
    "no money": (lambda p, t: for_budget(Utility(), p, t, 0), "buys nothing"),
    "a draw": (lambda p, t: for_budget(Sample(), p, t, 1), "sample has no knob.*utility, mix, threshold"),
    "a vote": (lambda p, t: for_drop(Subset(), p, t, 0.1), "subset has no knob"),
    "no part": (lambda p, t: for_drop(Utility(), p, t, 1.5), "allowed: 0 to 1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_kept_is_refused(what: str) -> None:
    call, says = REFUSED[what]
    with pytest.raises(BadRequest, match=says):
        call(*table())


def test_a_loss_that_cannot_be_kept_is_refused_with_the_least_there_is() -> None:
    prediction, outcomes = table()
    bad = Prediction(-prediction.quality, prediction.cost, None, prediction.members, 2)
    with pytest.raises(BadRequest, match=r"loses \d+\.\d+% of the best member's quality at least"):
        for_drop(Utility(), bad, outcomes, 0.01)


def test_without_costs_a_budget_and_a_price_say_nothing() -> None:
    prediction, outcomes = table(known=False)
    free = Prediction(prediction.quality, np.zeros_like(prediction.cost), None, prediction.members, 2)
    with pytest.raises(BadRequest, match="does not tell what answers cost"):
        for_budget(Utility(), free, outcomes, 1)
    with pytest.raises(BadRequest, match="allowed: a threshold policy"):
        for_drop(Utility(), free, outcomes, 0.1)
    assert for_drop(Threshold(weak="m0"), free, outcomes, 0.1)


def test_all_who_vote_are_paid() -> None:
    prediction, outcomes = table(n=5)
    taken = decided("", Subset(size=2), prediction, outcomes)
    two = np.sort(prediction.quality, axis=1)[:, 1:2]
    assert taken.cost == pytest.approx(np.where(prediction.quality >= two, outcomes.cost, 0).sum(axis=1))


def test_prompts_that_nobody_counted_are_estimated() -> None:
    _, outcomes = table(n=2)
    counted = np.array([[4.0, np.nan, 8.0], [np.nan, np.nan, np.nan]])
    known = Dense(
        queries=outcomes.queries,
        texts=outcomes.texts,
        members=outcomes.members,
        quality=outcomes.quality,
        input_tokens=counted,
    )
    assert tokens(known).tolist() == [6.0, 2.0]
