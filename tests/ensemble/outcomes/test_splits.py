"""Splits: what is tested on is not fitted to, whatever divides the queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.errors import BadRequest
from ensemble.outcomes import splits
from ensemble.outcomes.table import Outcomes


def table(texts: Sequence[str | None], tasks: Sequence[str] = (), parts: Sequence[str] = ()) -> Outcomes:
    names = [str(place) for place in range(len(texts))]
    queries = {"query_id": names, "text": pa.array(texts, pa.string())}
    queries |= {"task": list(tasks)} if tasks else {}
    queries |= {"split": list(parts)} if parts else {}
    cells = pa.table({"query_id": names, "member": ["a"] * len(names), "quality": [1.0] * len(names)})
    return Outcomes.of(cells, pa.table(queries))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=30), st.floats(0.2, 0.8), st.integers(0, 9))
def test_no_text_is_in_both_parts_of_a_random_split(texts: list[str], share: float, seed: int) -> None:
    outcomes = table(texts)
    try:
        split = splits.random(outcomes, share, seed)
    except BadRequest:
        return
    assert not {texts[row] for row in split.fit} & {texts[row] for row in split.test}
    assert len(split.test) == round(len(texts) * share)
    left = set(range(len(texts))) - {*split.fit.tolist(), *split.test.tolist()}
    assert all(texts[row] in {texts[row] for row in split.test} for row in left)


def test_equal_seeds_give_equal_splits() -> None:
    outcomes = table([str(i) for i in range(100)])
    one, same, other = (splits.random(outcomes, 0.3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.test, same.test)
    assert one.test.tolist() != other.test.tolist()
    assert len(one.fit) + len(one.test) == 100


def test_queries_without_text_are_never_the_same() -> None:
    split = splits.random(table([None] * 10), 0.5)
    assert (len(split.fit), len(split.test)) == (5, 5)


def test_the_tables_own_parts() -> None:
    outcomes = table(["1", "2", "3", " 2 ", "4"], parts=["train", "train", "test", "test", "other"])
    split = splits.by_column(outcomes, ["train"], ["test"])
    assert (split.fit.tolist(), split.test.tolist()) == ([0], [2, 3])
    with pytest.raises(BadRequest, match="the table has no part tets; it has: other, test, train"):
        splits.by_column(outcomes, ["train"], ["tets"])
    with pytest.raises(BadRequest, match="test: either fitted to or tested on"):
        splits.by_column(outcomes, ["train", "test"], ["test"])


def test_a_task_is_left_out() -> None:
    outcomes = table(["1", "2", "3"], tasks=["sum", "word", "sum"])
    split = splits.by_task(outcomes, ["word"])
    assert (split.fit.tolist(), split.test.tolist()) == ([0, 2], [1])
    with pytest.raises(BadRequest, match="the table has no task code; it has: sum, word"):
        splits.by_task(outcomes, ["code"])
    with pytest.raises(BadRequest, match="leaves nothing to fit to"):
        splits.by_task(outcomes, ["sum", "word"])


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(BadRequest, match="above 0 and below 1"):
        splits.random(table(["1", "2"]), share)
