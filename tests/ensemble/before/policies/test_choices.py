"""Policies that decide each query by itself: the published worked examples, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.policies import Choice, Mix, Policy, Prediction, Subset, Threshold, Utility, Within, policy
from ensemble.errors import BadRequest, ConfigurationError

CARROT = Prediction(np.array([[0.8, 0.7, 0.5]]), np.array([[0.004, 0.001, 0.0002]]))
HOMOROUTER = Prediction(np.array([[0.62, 0.60, 0.45]]), np.array([[5, 1, 0.5]]))
EVERY: list[dict[str, Any]] = [
    {"kind": "utility", "price": 0.3},
    {"kind": "mix", "mu": 0.4},
    {"kind": "threshold"},
    {"kind": "threshold", "margin": 0.1, "weak": "m0"},
    {"kind": "within", "delta": 0.2},
    {"kind": "enough", "least": 0.6},
    {"kind": "enough", "least": 0.6, "fallback": "dearest"},
    {"kind": "subset", "size": 2},
    {"kind": "subset", "size": 2, "least": 0.9},
    {"kind": "sample"},
    {"kind": "sample", "by": "epsilon", "epsilon": 0.5},
    {"kind": "sample", "by": "thompson"},
    {"kind": "sample", "by": "ucb"},
    {"kind": "assign", "budget": 0.4},
]


def chosen(decided: Policy, prediction: Prediction, allowed: np.ndarray | None = None, seed: int = 0) -> Choice:
    everyone = np.ones(prediction.quality.shape, bool)
    return decided.choose(prediction, everyone if allowed is None else allowed, np.random.default_rng(seed))


def some(seed: int = 0, n: int = 40, members: int = 4) -> Prediction:
    random = np.random.default_rng(seed)
    quality, cost, std = (random.random((n, members)) for _ in range(3))
    return Prediction(quality, cost, std / 5, tuple(f"m{i}" for i in range(members)), 1)


@pytest.mark.parametrize(
    ("mu", "scores", "best"),
    [(0.1, (0.68, 0.62, 0.448), 0), (0.5, (0.2, 0.3, 0.24), 1), (0.9, (-0.28, -0.02, 0.032), 2)],
)
def test_a_mix_weighs_quality_and_money(mu: float, scores: tuple[float, ...], best: int) -> None:
    choice = chosen(Mix(mu=mu, scale=100), CARROT)
    assert choice.scores[0] == pytest.approx(scores, abs=1e-6)
    assert choice.chosen.tolist() == [best]


def test_the_ends_of_a_mix_are_the_best_and_the_cheapest() -> None:
    prediction = some()
    assert (chosen(Mix(mu=0), prediction).chosen == prediction.quality.argmax(axis=1)).all()
    assert (chosen(Mix(mu=1), prediction).chosen == prediction.cost.argmin(axis=1)).all()


@given(st.floats(0, 0.95), st.floats(0.1, 100))
def test_prices_that_double_are_another_mix(mu: float, scale: float) -> None:
    prediction = some()
    dearer = Prediction(prediction.quality, prediction.cost * 2)
    moved = 2 * mu / (1 + mu)
    one, other = (
        chosen(p, d).scores for p, d in ((Mix(mu=mu, scale=scale), dearer), (Mix(mu=moved, scale=scale), prediction))
    )
    assert one / (1 - mu) == pytest.approx(other / (1 - moved), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("delta", "tool"), [(0, 0), (0.03, 1), (0.2, 2)])
def test_the_cheapest_within_reach_of_the_best(delta: float, tool: int) -> None:
    assert chosen(Within(delta=delta), HOMOROUTER).chosen.tolist() == [tool]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_more_reach_never_costs_more_nor_promises_more(one: float, other: float, seed: int) -> None:
    prediction, rows = some(seed), np.arange(40)
    near, far = (chosen(Within(delta=delta), prediction).chosen for delta in sorted((one, other)))
    assert (prediction.cost[rows, far] <= prediction.cost[rows, near]).all()
    assert (prediction.quality[rows, far] <= prediction.quality[rows, near]).all()


def test_the_cheapest_arm_whose_margin_suffices() -> None:
    logits = np.array([[1, 0], [0, 0.5]])
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    margins = odds[:, 0] - odds[:, 1]
    assert margins == pytest.approx([0.462117, -0.244919], abs=1e-6)
    # An arm with its margin, and the dear reference, whose margin is 1.
    arms = Prediction(np.column_stack([margins, [1.0, 1.0]]), np.tile([1.0, 9.0], (2, 1)))
    assert chosen(policy({"kind": "enough", "least": 0}), arms).chosen.tolist() == [0, 1]
    assert chosen(policy({"kind": "enough", "least": -1}), arms).chosen.tolist() == [0, 0]
    assert chosen(policy({"kind": "enough", "least": 1.5}), arms).chosen.tolist() == [1, 1]


def test_where_nobody_is_good_enough_the_best_or_the_dearest_answers() -> None:
    prediction = Prediction(np.array([[0.1, 0.4, 0.2], [0.6, 0.7, 0.1]]), np.tile([1.0, 2.0, 3.0], (2, 1)))
    assert chosen(policy({"kind": "enough"}), prediction).chosen.tolist() == [1, 0]
    assert chosen(policy({"kind": "enough", "fallback": "dearest"}), prediction).chosen.tolist() == [2, 0]


STRONG = np.array([0.1, 0.5, 0.640065, 0.9])


def pairwise(strong: np.ndarray = STRONG) -> Prediction:
    return Prediction(np.column_stack([strong, 1 - strong]), np.tile([9.0, 1.0], (len(strong), 1)), None, ("s", "w"), 0)


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (0.5, 0.75), (0.640065, 0.5), (0.7, 0.25), (1.01, 0.0)])
def test_a_threshold_on_a_probability_is_a_margin(threshold: float, share: float) -> None:
    choice = chosen(Threshold(margin=2 * threshold - 1 - 1e-12), pairwise())
    assert (choice.chosen == 0).mean() == share


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_a_higher_margin_sends_no_more_to_the_strong(one: float, other: float) -> None:
    low, high = (chosen(Threshold(margin=margin), some()).chosen == 1 for margin in sorted((one, other)))
    assert not (high & ~low).any()


def test_who_is_strong_and_who_is_weak_where_nobody_says() -> None:
    prediction = Prediction(
        np.array([[0.5, 0.9, 0.2, 0.6]] * 2),
        np.array([[1.0, 4.0, 2.0, 3.0], [3.0, 4.0, 2.0, 1.0]]),
        None,
        tuple("abcd"),
        1,
    )
    everyone = np.ones((2, 4), bool)

    def pair(given: Threshold, allowed: np.ndarray = everyone) -> list[list[int]]:
        return [side.tolist() for side in given.pair(prediction, allowed)]

    assert pair(Threshold()) == [[1, 1], [0, 3]], "the best overall, and the cheapest on each query"
    assert pair(Threshold(strong="c")) == [[2, 2], [0, 3]]
    assert pair(Threshold(weak="a")) == [[1, 1], [0, 0]]
    assert pair(Threshold(weak="b")) == [[3, 3], [1, 1]], "the best overall is the weak one: the best of the others"
    assert pair(Threshold(), everyone & [False, True, True, True]) == [[1, 1], [2, 3]]


@pytest.mark.parametrize(
    ("out", "answers"), [(["m1"], 0), (["m0"], 1), (["m0", "m1"], 3)], ids=["strong", "weak", "both"]
)
def test_who_is_out_of_service_is_passed_over(out: list[str], answers: int) -> None:
    prediction = Prediction(np.array([[0.5, 0.5, 0.2, 0.6]]), np.ones((1, 4)), None, ("m0", "m1", "m2", "m3"), 1)
    allowed = np.array([[name not in out for name in prediction.members]])
    pair = Threshold(strong="m1", weak="m0")
    assert chosen(pair, prediction, allowed).chosen.tolist() == [answers]
    left = prediction.among(np.flatnonzero(allowed[0]).tolist())
    assert left.members[int(chosen(pair, left).chosen[0])] == f"m{answers}", "the same where they are not even listed"


def test_a_policy_that_names_a_stranger_is_refused() -> None:
    Threshold(strong="m1", weak="m0").check(("m0", "m1"))
    with pytest.raises(ConfigurationError, match=r"weak 'nobody' of the policy threshold.*allowed: m0, m1"):
        Threshold(weak="nobody").check(("m0", "m1"))


def test_a_subset_votes_with_its_confidences() -> None:
    choice = chosen(Subset(size=2), Prediction(np.array([[0.9, 0.6, 0.5]]), np.zeros((1, 3))))
    assert choice.weights is not None and choice.weights.tolist() == [[0.9, 0.6, 0.0]]
    counts = {"7": np.array([6, 0, 0]), "8": np.array([4, 10, 0])}
    votes = {answer: float(choice.weights[0] @ count) for answer, count in counts.items()}
    assert votes == pytest.approx({"7": 5.4, "8": 9.6}, abs=1e-6)


def test_a_subset_of_one_is_the_best_and_of_all_with_equal_confidences_a_plain_vote() -> None:
    prediction = some()
    one = chosen(Subset(size=1), prediction)
    assert (one.chosen == prediction.quality.argmax(axis=1)).all()
    assert one.weights is not None and ((one.weights > 0).sum(axis=1) == 1).all()
    equal = chosen(Subset(size=4), Prediction(np.full((2, 4), 0.7), np.zeros((2, 4))))
    assert equal.weights is not None and np.ptp(equal.weights) == 0 and equal.weights.min() > 0


def test_confidences_of_another_scale_give_the_same_vote_and_none_is_no_vote() -> None:
    quality = np.array([[0.9, 0.0, 0.5, 0.4]])
    one, scaled = (chosen(Subset(size=4), Prediction(s * quality, np.zeros((1, 4)))).weights for s in (1.0, 0.1))
    assert one is not None and scaled is not None
    assert scaled * 10 == pytest.approx(one) and one[0, 1] == 0


def test_where_nobody_is_confident_the_best_overall_answers_alone() -> None:
    prediction = Prediction(np.array([[0.3, 0.2, 0.1], [0.9, 0.2, 0.6]]), np.zeros((2, 3)), best=2)
    choice = chosen(Subset(least=0.5, weighted=False), prediction)
    assert choice.chosen.tolist() == [2, 0]
    assert choice.weights is not None and choice.weights.tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize("given", EVERY, ids=str)
def test_nobody_answers_who_is_not_allowed_and_every_choice_is_possible(given: dict[str, Any]) -> None:
    prediction = some()
    allowed = np.random.default_rng(1).random(prediction.quality.shape) < 0.5
    allowed[:, 2] |= ~allowed.any(axis=1)
    choice = chosen(policy(given), prediction, allowed)
    assert allowed[np.arange(40), choice.chosen].all()
    assert (np.isneginf(choice.scores) == ~allowed).all()
    assert ((choice.propensity > 0) & (choice.propensity <= 1 + 1e-12)).all()
    if choice.weights is not None:
        assert not choice.weights[~allowed].any() and (choice.weights[np.arange(40), choice.chosen] > 0).all()


@pytest.mark.parametrize("given", [g for g in EVERY if g["kind"] != "sample"], ids=str)
def test_the_order_of_members_says_nothing(given: dict[str, Any]) -> None:
    prediction, order = some(), [2, 0, 3, 1]
    turned = prediction.among(order, order.index(prediction.best))
    one, other = chosen(policy(given), prediction), chosen(policy(given), turned)
    assert (np.array(order)[other.chosen] == one.chosen).all()


@pytest.mark.parametrize("given", EVERY, ids=str)
def test_a_policy_is_what_its_configuration_says(given: dict[str, Any]) -> None:
    assert policy(policy(given).model_dump(exclude_unset=True)) == policy(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "a mapping with a kind; kinds: assign, enough, mix"),
        ({"kind": "utilty"}, "no policy is of kind 'utilty'; kinds: assign"),
        ({"kind": "mix", "nu": 1}, "the policy mix has no option 'nu'; it has: mu, scale"),
        ({"kind": "utility", "price": -1}, "greater than or equal to 0"),
        ({"kind": "threshold", "strong": "a", "weak": "a"}, "strong and weak are both 'a'"),
        ({"kind": "sample", "by": "ucb", "epsilon": 0.1}, "ucb has no option epsilon; it has: spread, price"),
        ({"kind": "assign"}, "Field required"),
    ],
    ids=str,
)
def test_what_no_policy_is_gets_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        policy(given)


def test_equal_scores_go_to_the_cheaper_then_to_the_first() -> None:
    prediction = Prediction(np.full((1, 3), 0.5), np.array([[2.0, 1.0, 1.0]]))
    for decided in (Utility(), Within(), Subset(size=1)):
        assert chosen(decided, prediction).chosen.tolist() == [1]
