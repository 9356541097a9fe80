"""Labels of a match, from samples of both members."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.targets.matching import best, matches, rated, samples_of, tolerance_of, unlike
from ensemble.outcomes.dense import Dense

NAN = np.nan
SMALL, LARGE = np.array([[-1.0, -2.0]]), np.array([[-1.5, -0.5]])
scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=4)


def test_the_worked_example() -> None:
    found = [matches(SMALL, LARGE, t)[0] for t in (0, 0.5, 1, 1.5)]
    assert found == [0.25, 0.75, 0.75, 1.0]
    assert round(unlike(np.array([0, 0, 0.25])), 6) == 0.111111
    assert round(unlike(np.array([0.2, 0.6, 1])), 6) == 0.355556
    assert unlike(np.ones(3)) == 0


@given(scores, scores, st.floats(0, 1), st.floats(0, 1))
def test_more_tolerance_never_matches_less(own: list[float], other: list[float], t: float, more: float) -> None:
    one, two = np.array([own]), np.array([other])
    assert matches(one, two, t)[0] <= matches(one, two, t + more)[0] + 1e-12
    assert matches(one, two, max(other) - min(own))[0] == 1.0


@given(scores, scores)
def test_the_other_way_round_is_the_rest_up_to_ties(own: list[float], other: list[float]) -> None:
    one, two = np.array([own]), np.array([other])
    ties = np.mean([a == b for a, b in product(own, other)])
    assert matches(two, one)[0] == pytest.approx(1 - matches(one, two)[0] + ties)


@given(scores, scores, st.integers(1, 5), st.floats(0, 1))
def test_more_samples_never_match_less(own: list[float], other: list[float], count: int, selector: float) -> None:
    one, two = np.array([own]), np.array([other])
    some, more = (matches(one, two, 0.0, n, selector)[0] for n in (count, count + 1))
    assert some <= more + 1e-12


def test_the_best_of_two_samples_is_the_better_one() -> None:
    own, other = np.array([[0.0, 0.6, 1.0]]), np.array([[0.5, 0.8]])
    drawn = [np.mean([max(pair) >= r for pair in combinations(own[0], 2)]) for r in other[0]]
    assert matches(own, other, best_of=2)[0] == pytest.approx(np.mean(drawn))
    assert matches(own, other, best_of=3)[0] == matches(own, other, best_of=9)[0] == 1
    assert matches(own, other, best_of=2, selector=0.0)[0] == pytest.approx(matches(own, other)[0])


def test_absent_samples_do_not_count() -> None:
    own, other = np.array([[1.0, NAN], [NAN, NAN], [0.0, 1.0]]), np.array([[0.5, 0.5], [1.0, 1.0], [NAN, NAN]])
    assert matches(own, other).tolist() == pytest.approx([1.0, NAN, NAN], nan_ok=True)


def test_rates_stand_for_samples_without_end() -> None:
    assert rated(np.array([0.5]), np.array([0.8]))[0] == pytest.approx(0.2 + 0.8 * 0.5)
    assert rated(np.array([0.5]), np.array([0.8]), 2)[0] == pytest.approx(0.2 + 0.8 * 0.75)
    assert best(np.array([0.5]), 2, 0.5)[0] == pytest.approx(0.5 + 0.5 * 0.25)


def test_the_tolerance_makes_labels_most_unlike() -> None:
    # Nothing matches without one; with one of 1 the first query does and the second does not; with 2 all do.
    own, other = np.array([[0.0], [0.0]]), np.array([[1.0], [2.0]])
    assert tolerance_of(own, other) == pytest.approx(1.0)
    assert tolerance_of(np.ones((2, 1)), np.zeros((2, 1))) == 0.0


def test_samples_are_taken_where_there_are_any() -> None:
    table = Dense(
        queries=("a", "b"), texts=("", ""), members=("m",), quality=np.array([[0.5], [0.75]]),
        samples=np.array([[[0.0, 1.0]], [[NAN, NAN]]]),
    )  # fmt: skip
    assert np.array_equal(samples_of(table, 0), np.array([[0.0, 1.0], [0.75, NAN]]), equal_nan=True)
