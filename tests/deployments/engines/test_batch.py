"""Laying rows out as one pass: nothing is lost, nothing is seen that should not be, padding stays small."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.batch import Row, assemble

SPARE = 99
ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), min_size=1, max_size=6)


def chains(sizes: list[tuple[int, int]]) -> list[Row]:
    return [Row(i, start, list(range(100 * i, 100 * i + n)), None, [n - 1]) for i, (start, n) in enumerate(sizes)]


@given(ROWS)
def test_every_token_is_placed_once(sizes: list[tuple[int, int]]) -> None:
    rows = chains(sizes)
    batch = assemble(rows, SPARE)
    real = batch.slots != SPARE
    placed = sorted(zip(batch.slots[real], batch.columns[real], batch.ids[real], strict=True))
    assert placed == [(r.slot, r.start + i, token) for r in rows for i, token in enumerate(r.ids)]


@given(ROWS)
def test_a_token_sees_itself_and_what_is_before_it(sizes: list[tuple[int, int]]) -> None:
    batch = assemble(chains(sizes), SPARE)
    columns = np.arange(batch.width)
    for b, t in np.argwhere(batch.slots != SPARE):
        assert np.array_equal(batch.visible[b, t], columns <= batch.columns[b, t])
    assert batch.visible.any(axis=2).all(), "even padding sees something"


@given(ROWS)
def test_wanted_places_are_the_last_tokens(sizes: list[tuple[int, int]]) -> None:
    rows = chains(sizes)
    batch = assemble(rows, SPARE)
    assert [batch.ids[b, t] for b, t in batch.wanted] == [row.ids[-1] for row in rows]


def test_a_prefill_among_decoders_is_folded() -> None:
    rows = [Row(i, 5, [1], None, [0]) for i in range(7)] + [Row(7, 0, list(range(64)), None, [63])]
    batch = assemble(rows, SPARE)
    assert batch.ids.size < 2 * 71, "unfolded it would be 8 rows of 64"


def test_branches_do_not_see_each_other() -> None:
    """Stem of two columns, then a token with two continuations."""
    batch = assemble([Row(0, 2, [7, 8, 9], [-1, 0, 0], [0, 1, 2])], SPARE, distances=True)
    real = batch.slots != SPARE
    assert batch.positions[real].tolist() == [2, 3, 3]
    assert batch.columns[real].tolist() == [2, 3, 4]
    assert batch.visible[real].astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]
    assert batch.distances is not None
    assert batch.distances[real][2].tolist() == [3, 2, 1, 0, 0]
