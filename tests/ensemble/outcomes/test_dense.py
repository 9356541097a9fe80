"""The dense view: masks, means, and parts of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.outcomes.dense import Dense, mean_observed

NAN = np.nan


def dense() -> Dense:
    return Dense(
        queries=("p", "q", "r"),
        texts=("1", "2", None),
        members=("a", "b"),
        quality=np.array([[1.0, 0.0], [NAN, 1.0], [0.0, 0.5]]),
        cost=np.array([[1.0, 2.0], [NAN, 2.0], [3.0, 4.0]]),
        tasks=("sum", "sum", "word"),
        samples=np.arange(12.0).reshape(3, 2, 2),
        features=np.eye(3, dtype=np.float32),
        prices=np.array([[1.0, 2.0], [3.0, 4.0]]),
    )


def test_what_is_observed() -> None:
    assert dense().observed.tolist() == [[True, True], [False, True], [True, True]]
    assert dense().complete.tolist() == [True, False, True]
    assert dense().means.tolist() == [0.5, 0.5]


def test_the_best_member_is_the_first_of_equals_and_never_one_unseen() -> None:
    assert dense().best == 0
    unseen = Dense(queries=("q",), texts=("",), members=("a", "b"), quality=np.array([[NAN, 0.0]]))
    assert unseen.best == 1


def test_rows_take_every_array_along() -> None:
    some = dense().rows([2, 0])
    assert some.queries == ("r", "p") and some.texts == (None, "1") and some.tasks == ("word", "sum")
    assert some.quality.tolist() == [[0.0, 0.5], [1.0, 0.0]] and some.cost[0, 1] == 4
    assert some.samples is not None and some.samples[0, 0, 0] == 8
    assert some.features is not None and some.features[0].tolist() == [0, 0, 1]
    assert some.prices.tolist() == dense().prices.tolist()


def test_rows_by_mask_equal_rows_by_place() -> None:
    assert dense().rows(np.array([True, False, True])).queries == dense().rows([0, 2]).queries


def test_among_takes_columns_by_name_in_the_order_given() -> None:
    swapped = dense().among(["b", "a"])
    assert swapped.members == ("b", "a") and swapped.quality[0].tolist() == [0.0, 1.0]
    assert swapped.prices.tolist() == [[3, 4], [1, 2]]
    assert swapped.samples is not None and swapped.samples[0, 0, 0] == 2
    assert swapped.features is dense().features or swapped.features is not None
    with pytest.raises(KeyError):
        dense().among(["c"])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 queries × 1 members"):
        Dense(queries=("p", "q"), texts=("", ""), members=("a",), quality=np.zeros((1, 1)))


def test_omitted_arrays_are_unknown() -> None:
    bare = Dense(queries=("q",), texts=("",), members=("a",), quality=np.ones((1, 1)))
    assert np.isnan(bare.cost).all() and np.isnan(bare.prices).all() and bare.tasks == ("",)


@given(
    arrays(float, (5, 3), elements=st.one_of(st.just(NAN), st.floats(0, 1))), arrays(float, 5, elements=st.floats(0, 1))
)
def test_weighted_means_count_only_what_is_there(values: np.ndarray, weights: np.ndarray) -> None:
    means = mean_observed(values, weights, empty=-1.0)
    for column in range(3):
        seen = ~np.isnan(values[:, column])
        total = weights[seen].sum()
        expected = (values[seen, column] * weights[seen]).sum() / total if total > 0 else -1.0
        assert means[column] == pytest.approx(expected)
