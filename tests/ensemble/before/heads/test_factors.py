"""Factors: weights, limits, and what follows the outcomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.arms import Constant
from ensemble.before.heads.factors import Factors, frugality
from ensemble.before.heads.head import Outcome

X = np.zeros((2, 3), np.float32)
HEAD = Factors(
    Constant(np.array([0.8, 0.6, 0.9])),
    cost=np.array([0.1, 0.0, 1.0]),
    latency=np.array([0.5, 0.0, 1.0]),
    load=np.zeros(3),
)


def head(**changes: object) -> Factors:
    copied = {name: getattr(HEAD, name).copy() for name in ("cost", "latency", "load")}
    return replace(HEAD, **{**copied, **changes})  # type: ignore[arg-type]


def test_the_score_as_worked_out() -> None:
    # Quality 0.8, latency score 0.5, cost score 0.9, load score 1.
    assert head().scores(X)[0, 0] == pytest.approx(0.80, abs=5e-7)


@given(st.floats(0.1, 10))
def test_weights_are_normalised(factor: float) -> None:
    weights = tuple(factor * w for w in HEAD.weights)
    assert np.allclose(head(weights=weights).scores(X), HEAD.scores(X))


def test_who_is_beyond_a_limit_is_never_chosen() -> None:
    for limit, out in (("most_cost", [2]), ("most_latency", [0, 2]), ("least_quality", [1])):
        value = {"most_cost": 0.5, "most_latency": 0.4, "least_quality": 0.7}[limit]
        scores = head(**{limit: value}).scores(X)
        assert np.flatnonzero(np.isneginf(scores[0])).tolist() == out


def test_where_nobody_is_left_the_cheapest_answers() -> None:
    scores = head(least_quality=0.95).scores(X)
    assert scores[0].tolist() == [-np.inf, 0.0, -np.inf]


def test_load_lowers_a_score_and_may_bar() -> None:
    busy = head(load=np.array([3.0, 0.0, 0.0]))
    assert HEAD.scores(X)[0, 0] - busy.scores(X)[0, 0] == pytest.approx(0.2 * (1 - 1 / 4))
    assert np.isneginf(replace(busy, most_load=2).scores(X)[0, 0])


def test_what_is_not_known_is_neither_good_nor_bad_and_breaks_no_limit() -> None:
    unknown = head(cost=np.array([np.nan, 0.0, 1.0]), most_cost=0.5)
    assert unknown.scores(X)[0, 0] == pytest.approx(0.8 - 0.2 * (0.9 - 0.5))
    assert frugality(np.array([np.nan, np.nan])).tolist() == [0.5, 0.5]
    assert frugality(np.array([2.0, 2.0])).tolist() == [1, 1]


def test_costs_and_latencies_follow_outcomes() -> None:
    learning = head(latency=np.array([0.5, np.nan, 1.0]))
    learning.learn(Outcome(x=X[0], member=0, quality=1.0, cost=1.1))
    learning.learn(Outcome(x=X[0], member=1, quality=1.0, latency=0.3))
    assert learning.cost == pytest.approx([0.2, 0.0, 1.0]) and learning.latency == pytest.approx([0.5, 0.3, 1.0])


def test_a_new_member_is_neutral_where_nothing_is_known() -> None:
    wide = head().widen(X, np.ones(2))
    assert (
        np.array_equal(wide.scores(X)[:, :3], HEAD.scores(X))
        and np.isnan(wide.cost[3])
        and np.isfinite(wide.scores(X)).all()
    )


def test_a_new_members_cost_counts_once_it_is_told() -> None:
    wide = head().widen(X, np.ones(2))
    dear, cheap = wide.priced(1.0), wide.priced(0.0)
    assert cheap.scores(X)[0, 3] == pytest.approx(dear.scores(X)[0, 3] + 0.2)
    assert np.array_equal(cheap.scores(X)[:, :3], HEAD.scores(X))
