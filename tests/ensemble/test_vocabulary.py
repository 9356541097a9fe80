"""Beginnings that sequences of ids have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.vocabulary import common_prefix

ids = st.lists(st.integers(0, 2), max_size=12)
KINDS: list[Callable[[list[int]], Sequence[int]]] = [list, tuple, bytes]


@given(ids, ids, st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_what_two_sequences_begin_with(
    left: list[int],
    right: list[int],
    first: Callable[[list[int]], Sequence[int]],
    second: Callable[[list[int]], Sequence[int]],
) -> None:
    at = common_prefix(first(left), second(right))
    assert left[:at] == right[:at]
    assert at == min(len(left), len(right)) or left[at] != right[at]


@pytest.mark.parametrize("at", [0, 1, 500, 998, 999])
def test_long_sequences_that_differ_in_one_place(at: int) -> None:
    left = list(range(1000))
    assert common_prefix(left, [*left[:at], -1, *left[at + 1 :]]) == at
    assert common_prefix(left[:at], left) == common_prefix(left, left[:at]) == at
