"""Cost heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.before.costs.cost import MeanCosts, TokenCosts, known
from ensemble.before.fitting.training import Training
from ensemble.outcomes.dense import Dense, Floats

NAN = np.nan


def training(*, rows: int, **given: Floats) -> Training:
    names = tuple(str(i) for i in range(rows))
    table = replace(Dense(queries=names, texts=names, members=("a", "b"), quality=np.ones((rows, 2))), **given)  # type: ignore[arg-type]
    return Training(table=table, x=np.tile(np.eye(2, dtype=np.float32), (rows // 2, 1)))


def test_means_are_of_what_was_observed() -> None:
    costs = MeanCosts.fit(training(rows=2, cost=np.array([[1.0, NAN], [3.0, NAN]])))
    assert costs.of(np.zeros((3, 2)), np.zeros(3)).tolist() == [[2.0, 0.0]] * 3
    assert costs.widen(5.0).means.tolist() == [2.0, 0.0, 5.0]


def test_lengths_follow_the_query_and_prices_the_tokens() -> None:
    tokens = np.tile([[10.0, 100.0], [1000.0, 100.0]], (50, 1))
    given = training(rows=100, output_tokens=tokens)
    table = replace(given.table, prices=np.array([[1.0, 2.0], [0.0, 1.0]]))
    costs = known(Training(table=table, x=given.x))
    assert isinstance(costs, TokenCosts)
    short, long = costs.lengths(np.eye(2))[:, 0]
    assert short == pytest.approx(10, rel=0.3) and long == pytest.approx(1000, rel=0.3)
    found = costs.of(np.eye(2), np.array([7.0, 7.0]))
    assert found[0, 0] == pytest.approx(7 * 1 + short * 2) and found[0, 1] == pytest.approx(100, rel=0.05)


def test_lengths_are_never_above_the_longest_seen() -> None:
    costs = TokenCosts.fit(training(rows=2, output_tokens=np.array([[10.0, 5.0], [1000.0, NAN]])))
    assert (costs.lengths(np.array([[0.0, 50.0], [50.0, 0.0]])) <= [1000, 5]).all()


def test_without_prices_means_stand() -> None:
    assert isinstance(known(training(rows=4, output_tokens=np.ones((4, 2)))), MeanCosts)


def test_a_new_member_costs_its_mean_and_nobody_else_changes() -> None:
    tokens = np.tile([[10.0, 100.0], [1000.0, 100.0]], (50, 1))
    given = training(rows=100, output_tokens=tokens, prices=np.array([[1.0, 2.0], [0.0, 1.0]]))
    x, prompts = np.eye(2), np.array([7.0, 70.0])
    before = known(given)
    for mean, told in ((0.25, 0.25), (NAN, 0.0)):
        after = before.widen(mean).of(x, prompts)
        assert (after[:, :2] == before.of(x, prompts)).all()
        assert after[:, 2] == pytest.approx(told)


@pytest.mark.parametrize(("prompts", "expected"), [(NAN, MeanCosts), (100.0, TokenCosts)])
def test_tokens_are_believed_where_they_come_closer_to_the_costs_of_the_table(prompts: float, expected: type) -> None:
    # Nearly all is paid for the prompt: prices of answers alone would make the dear member the cheap one.
    written = np.tile([[4.0, 1.0], [1.0, 4.0]], (50, 1))
    prices = np.array([[0.1, 1.0], [1.0, 0.1]])
    paid = 100 * prices[:, 0] + written * prices[:, 1]
    read = np.full((100, 2), prompts)
    given = training(rows=100, output_tokens=written, prices=prices, input_tokens=read, cost=paid)
    costs = known(given)
    assert isinstance(costs, expected)
    assert costs.of(given.x, np.full(100, 100.0)) == pytest.approx(paid, rel=0.2)
