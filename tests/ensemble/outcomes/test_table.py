"""The outcome table: the dense view, its parts, joins, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.errors import BadRequest
from ensemble.outcomes.table import Outcomes

NAN = np.nan


def cells(**changed: Any) -> pa.Table:
    """Three answers to two queries; ``b`` was not asked ``q``."""
    columns: dict[str, Any] = {
        "query_id": ["p", "p", "q"],
        "member": ["a", "b", "a"],
        "quality": [1.0, 0.5, 0.0],
        "cost": [2.0, None, 3.0],
    }
    return pa.table({name: value for name, value in (columns | changed).items() if value is not None})


def table(**changed: Any) -> Outcomes:
    queries = pa.table({"query_id": ["q", "p"], "text": ["1+1=", "2+2="], "task": ["sum", None]})
    members = pa.table({"member": ["a", "b"], "input_price": [1e-6, None], "output_price": [2e-6, None]})
    return Outcomes.of(cells(**changed), queries, members, np.eye(2, 3, dtype=np.float32))


def test_the_dense_view_has_the_queries_order_and_holes() -> None:
    dense = table().dense()
    assert (dense.queries, dense.texts, dense.tasks) == (("q", "p"), ("1+1=", "2+2="), ("sum", ""))
    np.testing.assert_array_equal(dense.quality, [[0, NAN], [1, 0.5]])
    np.testing.assert_array_equal(dense.cost, [[3, NAN], [2, NAN]])
    np.testing.assert_array_equal(dense.latency, np.full((2, 2), NAN))
    np.testing.assert_array_equal(dense.prices, [[1e-6, 2e-6], [NAN, NAN]])
    assert dense.samples is None and dense.features is not None


def test_the_dense_view_of_some_members_is_in_their_order() -> None:
    dense = table().dense(["b", "a"])
    np.testing.assert_array_equal(dense.quality, [[NAN, 0], [0.5, 1]])
    np.testing.assert_array_equal(dense.prices[:, 0], [NAN, 1e-6])
    np.testing.assert_array_equal(table().dense(["b"]).quality, [[NAN], [0.5]])
    with pytest.raises(BadRequest, match="the table has no member c; it has: a, b"):
        table().dense(["a", "c"])


def test_samples_are_told_apart_and_averaged_where_they_have_a_value() -> None:
    sampled = cells(query_id=["p"] * 3, member=["a"] * 3, sample=[0, 2, 1], quality=[1.0, 0.0, None])
    dense = Outcomes.of(sampled).dense()
    np.testing.assert_array_equal(dense.quality, [[0.5]])
    np.testing.assert_array_equal(dense.cost, [[2.5]])
    np.testing.assert_array_equal(dense.samples, [[[1.0, NAN, 0.0]]])


def test_numbers_of_samples_only_tell_them_apart() -> None:
    sampled = cells(query_id=["p"] * 3, member=["a", "a", "b"], sample=[2_000_000_000, 7, 1_999_999_999], cost=None)
    np.testing.assert_array_equal(Outcomes.of(sampled).dense().samples, [[[0.5, 1.0], [0.0, NAN]]])


def test_an_answer_without_quality_is_a_hole_with_a_cost() -> None:
    dense = table(quality=[None, 0.5, 0.0]).dense()
    assert dense.observed.tolist() == [[True, False], [False, True]]
    assert dense.cost[1, 0] == 2


def test_a_table_without_quality_is_all_holes() -> None:
    assert not Outcomes.of(cells(quality=None)).dense().observed.any()


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_cells_does_not_matter(random: Any) -> None:
    queries = pa.table({"query_id": ["p", "q", "r"]})
    rows = [
        {"query_id": q, "member": m, "quality": i / 9} for i, (q, m) in enumerate((q, m) for q in "pqr" for m in "ab")
    ]
    members = pa.table({"member": ["a", "b"]})
    expected = Outcomes.of(pa.Table.from_pylist(rows), queries, members).dense().quality
    random.shuffle(rows)
    found = Outcomes.of(pa.Table.from_pylist(rows), queries, members).dense().quality
    np.testing.assert_array_equal(found, expected)


def test_a_long_table_tells_its_queries_in_the_order_of_their_first_cell() -> None:
    long = cells(query_id=["q", "p", "q"], member=["a", "a", "b"]).append_column("text", pa.array(["2", None, "2"]))
    outcomes = Outcomes.of(long)
    assert outcomes.queries.to_pylist() == [{"query_id": "q", "text": "2"}, {"query_id": "p", "text": None}]
    assert outcomes.names == ("a", "b")


def test_rows_of_a_query_that_differ_in_what_it_is_are_refused() -> None:
    long = cells(query_id=["p", "q", "q"]).append_column("text", pa.array(["1", "2", None]))
    with pytest.raises(BadRequest, match="the rows of query 'q' differ in text"):
        Outcomes.of(long)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"quality": [1.0, 1.5, 0.0]}, r"row 1 of the table: quality is 1.5; allowed: at least 0, at most 1"),
        ({"quality": [1.0, -0.5, 0.0]}, r"row 1 of the table: quality is -0.5"),
        ({"quality": [1.0, 0.0, NAN]}, r"row 2 of the table: quality is nan; allowed: finite numbers, and null"),
        ({"cost": [0.0, np.inf, None]}, r"row 1 of the table: cost is inf; allowed: finite numbers, and null"),
        ({"member": ["a", "b", ""]}, "row 2 of the table: member is empty; allowed: a value in each row"),
        ({"quality": ["good", "bad", "ugly"]}, "column 'quality' of the table must hold numbers; got string"),
        ({"input_tokens": [1, 2, -3]}, "row 2 of the table: input_tokens is -3.0; allowed: at least 0$"),
        ({"output_tokens": [-1, 2, 3]}, "row 0 of the table: output_tokens"),
        ({"cost": [0.0, -1.0, None]}, "row 1 of the table: cost"),
        ({"latency": [0.0, -1.0, None]}, "row 1 of the table: latency"),
        ({"propensity": [0.5, 1.0, 0.0]}, "row 2 of the table: propensity is 0.0; allowed: above 0, at most 1"),
        ({"member": ["a", None, "b"]}, "row 1 of the table: member is None; allowed: a value in each row"),
        ({"member": None}, "the table has no column 'member'; it has: query_id, quality, cost"),
        ({"query_id": None}, "the table has no column 'query_id'"),
        ({"score": [1, 2, 3], "x": [1, 2, 3]}, "the table has unknown columns: score, x; allowed: query_id, member"),
        ({"model": ["a", "b", "c"]}, "the table has the column 'member' twice"),
        ({"query_id": ["p", "p", "p"]}, "the table has 2 rows with query_id 'p', member 'a'; allowed: one"),
        ({"sample": [0, -1, 0]}, "row 1 of the table: sample is -1"),
    ],
)
def test_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        Outcomes.of(cells(**changed))


def test_cells_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(BadRequest, match="row 2 of the table: query_id 'r' is not among its 2 queries"):
        table(query_id=["p", "p", "r"])
    with pytest.raises(BadRequest, match="row 1 of the table: member 'c' is not among its 2 members"):
        table(member=["a", "c", "a"])
    with pytest.raises(BadRequest, match="the queries of the table has 2 rows with query_id 'p'"):
        Outcomes.of(cells(), pa.table({"query_id": ["p", "q", "p"]}))
    with pytest.raises(
        BadRequest, match=r"the features of the table have the shape \(3, 2\); needed: a row for each of 2"
    ):
        Outcomes.of(cells(), features=np.zeros((3, 2)))


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BadRequest, match="row 1 of the features of the table holds what is no number"):
        Outcomes.of(cells(), features=np.array([[1.0, 0.0], [NAN, 1.0]]))


def test_columns_of_other_tables_are_known_by_their_names_and_units() -> None:
    given = cells(member=None, model=["a", "b", "a"], latency_s=[1, 2, 3])
    prices = pa.table({"model": ["a", "b"], "price_in_per_mtok": [3.0, None], "price_out_per_mtok": [6, 9]})
    dense = Outcomes.of(given, members=prices).dense()
    np.testing.assert_array_equal(dense.latency, [[1, 2], [3, NAN]])
    np.testing.assert_allclose(dense.prices, [[3e-6, 6e-6], [NAN, 9e-6]])


def test_rows_keep_their_cells_and_features() -> None:
    part = table().rows(np.array([False, True]))
    assert (part.queries["query_id"].to_pylist(), part.cells.num_rows, part.names) == (["p"], 2, ("a", "b"))
    np.testing.assert_array_equal(part.features, [[0, 1, 0]])
    turned = table().rows([1, 0])
    np.testing.assert_array_equal(turned.dense().quality, table().dense().quality[::-1])


def test_among_keeps_all_queries() -> None:
    part = table().among(["b"])
    np.testing.assert_array_equal(part.dense().quality, [[NAN], [0.5]])
    assert part.cells.num_rows == 1


def test_keeping_makes_holes() -> None:
    part = table().keeping(np.array([False, True, True]))
    assert part.dense().observed.tolist() == [[True, False], [False, True]]
    assert part.names == ("a", "b")


def test_appended_tables_have_the_cells_of_both() -> None:
    more = Outcomes.of(
        pa.table({"query_id": ["q", "r"], "member": ["b", "c"], "quality": [0.25, 1.0], "latency": [1.0, 2.0]}),
        pa.table({"query_id": ["r", "q"], "text": ["3", "1+1="], "split": ["test", "fit"]}),
        features=np.full((2, 3), 7, np.float32),
    )
    both = table().append(more)
    np.testing.assert_array_equal(both.dense().quality, [[0, 0.25, NAN], [1, 0.5, NAN], [NAN, NAN, 1]])
    assert (both.column("text"), both.column("split")) == (("1+1=", "2+2=", "3"), ("fit", "", "test"))
    np.testing.assert_array_equal(both.features, [[1, 0, 0], [0, 1, 0], [7, 7, 7]])
    np.testing.assert_array_equal(both.dense().latency[2], [NAN, NAN, 2])


def test_tables_that_contradict_are_not_appended() -> None:
    same = Outcomes.of(cells().slice(0, 1))
    with pytest.raises(BadRequest, match="the joined table has 2 rows with query_id 'p', member 'a'"):
        table().append(same)
    cell = pa.table({"query_id": ["p"], "member": ["c"], "quality": [1.0]})
    other = Outcomes.of(cell, pa.table({"query_id": ["p"], "text": ["5"]}))
    with pytest.raises(BadRequest, match="the tables differ in text of query_id 'p': '2\\+2=' and '5'"):
        table().append(other)
    with pytest.raises(BadRequest, match="features must be equally wide; got 3 and none"):
        table().append(Outcomes.of(pa.table({"query_id": ["r"], "member": ["a"], "quality": [1.0]})))


def test_an_append_without_samples_fills_the_first() -> None:
    first = Outcomes.of(pa.table({"query_id": ["q"], "member": ["a"], "quality": [1.0]}))
    second = Outcomes.of(pa.table({"query_id": ["q"], "member": ["a"], "quality": [0.0], "sample": [1]}))
    np.testing.assert_array_equal(first.append(second).dense().samples, [[[1, 0]]])
    again = Outcomes.of(pa.table({"query_id": ["q"], "member": ["a"], "quality": [0.0], "sample": [0]}))
    with pytest.raises(BadRequest, match="2 rows with query_id 'q', member 'a', sample 0"):
        first.append(again)


def test_a_join_tells_more_and_adds_no_rows() -> None:
    joined = table().join(
        queries=pa.table({"query_id": ["p", "z"], "task": ["word", "none"], "split": ["fit", "fit"]}),
        members=pa.table({"member": ["b"], "input_price": [5e-6]}),
    )
    assert (joined.column("task"), joined.column("split")) == (("sum", "word"), ("", "fit"))
    np.testing.assert_array_equal(joined.dense().prices[:, 0], [1e-6, 5e-6])
    with pytest.raises(BadRequest, match="the tables differ in task of query_id 'q': 'sum' and 'word'"):
        table().join(queries=pa.table({"query_id": ["q"], "task": ["word"]}))
    with pytest.raises(BadRequest, match="what is joined has unknown columns: size"):
        table().join(queries=pa.table({"query_id": ["q"], "size": [3]}))
