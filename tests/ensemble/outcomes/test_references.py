"""References of every comparison, curves of predictions, and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.outcomes import bootstrap, sweeps
from ensemble.outcomes.curves import Point, hull
from ensemble.outcomes.dense import Dense
from ensemble.outcomes.references import by_task, mean_costs, oracle, references, singles, taken

NAMES = ["best single", "random", "cheapest single", "best of known task", "query oracle"]


def table(quality: list[list[float]], tasks: str = "", cost: list[float] | None = None) -> Dense:
    values = np.array(quality, float)
    n, m = values.shape
    return Dense(
        queries=tuple(str(row) for row in range(n)),
        texts=("",) * n,
        members=tuple("abcdef"[:m]),
        quality=values,
        cost=None if cost is None else np.tile(np.array(cost, float), (n, 1)),  # type: ignore[arg-type]
        tasks=tuple(tasks),
    )


FIT = table([[1, 0, 0], [1, 0, 1], [0, 1, 0], [1, 0, 0]], "xxyy", [3, 2, 1])
TEST = table([[0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]], "xxyz", [3, 2, 1])


def test_who_is_best_is_picked_on_the_part_that_was_fitted_to() -> None:
    found = {reference.name: reference for reference in references(FIT, TEST)}
    assert list(found) == NAMES
    # a is best where it was fitted to (3 of 4), though b is best on the test part (3 of 4).
    assert found["best single"].point == Point(3, 0.25)
    assert found["random"].point == pytest.approx(Point(2, 0.5))
    assert found["cheapest single"].point == Point(1, 0.5)
    assert found["best of known task"].chosen is not None and found["random"].chosen is None
    assert found["query oracle"].point == pytest.approx(Point((1 + 3 + 2 + 1) / 4, 1.0))


def test_a_task_that_was_not_fitted_to_has_the_best_single_member() -> None:
    fit = table([[1, 0], [1, 0], [0, 1]], "xxy")
    assert by_task(fit, table([[0, 0]] * 3, "xyz")).tolist() == [0, 1, 0]


def test_holes_are_skipped_in_costs_and_what_is_not_known_is_left_out() -> None:
    costs = Dense(
        queries=("p", "q"),
        texts=("", ""),
        members=("a", "b"),
        quality=np.ones((2, 2)),
        cost=np.array([[1.0, np.nan], [3.0, np.nan]]),
    )
    assert mean_costs(costs)[0] == 2 and np.isnan(mean_costs(costs)[1])
    assert [reference.name for reference in references(costs, costs)] == ["best single", "random", "query oracle"]


def test_the_oracle_with_a_price() -> None:
    assert oracle(TEST).tolist() == [2, 0, 1, 2]
    assert oracle(TEST, price=0.3).tolist() == [2, 0, 1, 2]
    assert oracle(TEST, price=0.6).tolist() == [2, 2, 1, 2]
    assert oracle(TEST, price=10).tolist() == [2, 2, 2, 2]


def test_an_oracle_does_not_choose_what_nobody_asked() -> None:
    assert oracle(table([[np.nan, 0.0], [0.5, np.nan]])).tolist() == [1, 0]


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 5))
def test_nobody_is_above_the_oracle_and_single_members_are_as_they_are(seed: int, n: int, members: int) -> None:
    random = np.random.default_rng(seed)
    made = table(random.random((n, members)).tolist(), "", list(random.random(members)))
    own = taken("any", made, random.integers(0, members, n))
    best = taken("oracle", made, oracle(made))
    assert (best.quality >= own.quality).all()
    assert [point.quality for point in singles(made)] == pytest.approx(made.means.tolist())


def test_a_sweep_goes_from_the_best_prediction_to_the_cheapest() -> None:
    made = table([[0.9, 0.6, 0.1]] * 3, "", [5, 2, 1])
    points = sweeps.sweep(made.quality, made.cost, made)
    assert points[0] == pytest.approx(Point(5, 0.9)) and points[-1] == pytest.approx(Point(1, 0.1))
    assert {round(point.cost) for point in points} == {5, 2, 1}
    costs = [point.cost for point in points]
    assert costs == sorted(costs, reverse=True)


def test_predictions_that_do_not_differ_have_one_price() -> None:
    flat = np.ones((2, 2))
    assert sweeps.prices(flat, flat).tolist() == [0]
    assert sweeps.choices(flat, np.array([[2.0, 1.0]] * 2), 0.0).tolist() == [1, 1]


@given(st.integers(0, 2**31))
def test_the_oracle_curve_is_above_the_one_of_any_prediction(seed: int) -> None:
    random = np.random.default_rng(seed)
    made = table(random.random((20, 3)).tolist(), "", [1, 2, 4])
    bound = hull(sweeps.oracle_sweep(made))
    costs, qualities = zip(*bound, strict=True)
    for point in sweeps.sweep(random.random((20, 3)), made.cost, made):
        assert point.cost < costs[0] - 1e-9 or point.quality <= np.interp(point.cost, costs, qualities) + 0.02


def test_blocks_of_resamples_bound_memory_and_not_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = bootstrap.interval(values, resamples=4000, seed=1)
    monkeypatch.setattr(bootstrap, "_BLOCK", 50 * 300)
    drawn = bootstrap.means(values, resamples=4000, seed=1)
    assert drawn.shape == (4000,)
    assert bootstrap.interval(values, resamples=4000, seed=1) == pytest.approx(whole, abs=0.01)
    assert whole[0] < values.mean() < whole[1]
