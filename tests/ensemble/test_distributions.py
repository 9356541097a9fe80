"""Lists of the likeliest tokens: in order, ties by id, however long."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ensemble.distributions import likeliest, log_softmax

VALUES = st.sampled_from([-np.inf, -3.5, -3.0, -1e-30, -0.0, 0.0, 1e-40, 0.25, 2.0]) | st.floats(-50, 5, width=32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_the_largest_come_first_and_equal_ones_in_order(dtype: type, data: st.DataObject) -> None:
    values = data.draw(arrays.arrays(dtype, st.integers(1, 40), elements=VALUES.map(dtype)))
    wanted = sorted(range(len(values)), key=lambda i: (-values[i], i))
    for topk in (0, 1, 3, len(values)):
        found = likeliest(values, topk)
        assert found.ids.tolist() == wanted[: topk or None] and found.ids.dtype == np.int32
        assert np.array_equal(found.logprobs, values[found.ids]) and found.logprobs.dtype == dtype
        assert found.size == len(values)


def test_a_whole_vocabulary_is_in_order_within_a_few_milliseconds() -> None:
    row = log_softmax(np.random.default_rng(0).normal(size=128_256).astype(np.float32))

    def seconds(topk: int) -> float:
        start = time.perf_counter()
        likeliest(row, topk)
        return time.perf_counter() - start

    assert min(seconds(0) for _ in range(5)) < 0.005
    assert min(seconds(64) for _ in range(5)) < 0.005
