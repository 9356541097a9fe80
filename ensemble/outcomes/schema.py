"""The columns of an outcome table: names, types, ranges, and what other tables call them.

A table is brought into this form or refused with the name of what is wrong. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ensemble.errors import BadRequest


class Column(NamedTuple):
    """One column; missing values are null, never NaN."""

    type: pa.DataType
    required: bool = False
    """Whether it must be there, with a value in each row; empty text is none."""
    low: float | None = None
    high: float | None = None
    above: bool = False
    """Whether ``low`` itself is not allowed."""


_TEXT, _LONG, _NUMBER = pa.string(), pa.large_string(), pa.float64()

QUERIES: Mapping[str, Column] = {
    "query_id": Column(_TEXT, required=True),
    "text": Column(_LONG),
    "task": Column(_TEXT),
    "split": Column(_TEXT),
    "reference": Column(_LONG),
    "input_tokens_est": Column(_NUMBER, low=0),
    "note": Column(_LONG),
}
"""Of a query: what was asked, its kind, its part of the table, and the answer that is right, where known."""

CELLS: Mapping[str, Column] = {
    "query_id": Column(_TEXT, required=True),
    "member": Column(_TEXT, required=True),
    "sample": Column(pa.int32(), low=0),
    "response": Column(_LONG),
    "quality": Column(_NUMBER, low=0, high=1),
    "input_tokens": Column(_NUMBER, low=0),
    "output_tokens": Column(_NUMBER, low=0),
    "cost": Column(_NUMBER, low=0),
    "latency": Column(_NUMBER, low=0),
    "propensity": Column(_NUMBER, low=0, high=1, above=True),
    "error": Column(_LONG),
    "raw_score": Column(_NUMBER),
}
"""Of one answer. A null quality is a hole; ``sample`` tells apart several answers of a member to a query."""

MEMBERS: Mapping[str, Column] = {
    "member": Column(_TEXT, required=True),
    "input_price": Column(_NUMBER, low=0),
    "output_price": Column(_NUMBER, low=0),
    "params_b": Column(_NUMBER, low=0),
    "cost_kind": Column(_TEXT),
    "note": Column(_LONG),
}
"""Of a member: money per token read and written."""

LONG: Mapping[str, Column] = {**QUERIES, **CELLS}
"""Of a table in one file, where a query is told again with each of its answers."""

ALIASES: Mapping[str, tuple[str, float]] = {
    "model": ("member", 1.0),
    "latency_s": ("latency", 1.0),
    "price_in_per_mtok": ("input_price", 1e-6),
    "price_out_per_mtok": ("output_price", 1e-6),
}
"""Other names of columns, and the factor between the units."""


def shaped(table: pa.Table, columns: Mapping[str, Column], where: str) -> pa.Table:
    """The table with the types of the columns, in their order; those that are missing are left out.

    Args:
        where: what the table is called in errors.

    Raises:
        BadRequest: a column is unknown, missing or of another type, or a value is outside what is allowed.
    """
    table = _renamed(table, where)
    if unknown := [name for name in table.column_names if name not in columns]:
        rule = f"{where} has unknown columns: {', '.join(unknown)}; allowed: {', '.join(columns)}"
        raise BadRequest(rule, param=unknown[0])
    if missing := [n for n, column in columns.items() if column.required and n not in table.column_names]:
        has = ", ".join(table.column_names) or "none"
        raise BadRequest(f"{where} has no column {missing[0]!r}; it has: {has}", param=missing[0])
    kept = {n: _checked(table[n], n, c, where) for n, c in columns.items() if n in table.column_names}
    return pa.table(kept)


def unique(table: pa.Table, keys: Sequence[str], where: str) -> None:
    """Refuse two rows with the same keys.

    Raises:
        BadRequest: naming the first that is there again.
    """
    counted = table.select(list(keys)).group_by(list(keys), use_threads=False).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    if twice.num_rows:
        named = ", ".join(f"{key} {twice[key][0].as_py()!r}" for key in keys)
        raise BadRequest(f"{where} has {twice['count_all'][0]} rows with {named}; allowed: one", param=keys[0])


def _renamed(table: pa.Table, where: str) -> pa.Table:
    names = [ALIASES.get(name, (name, 1.0))[0] for name in table.column_names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRequest(f"{where} has the column {twice[0]!r} twice", param=twice[0])
    columns = [
        pc.multiply(cast(table[own], pa.float64(), own, where), ALIASES[own][1])
        if own in ALIASES and ALIASES[own][1] != 1.0
        else table[own]
        for own in table.column_names
    ]
    return pa.table(dict(zip(names, columns, strict=True)))


def _checked(values: pa.ChunkedArray, name: str, column: Column, where: str) -> pa.ChunkedArray:
    values = cast(values, column.type, name, where)
    if column.required:
        _refuse(pc.fill_null(pc.equal(values, ""), True), values, name, where, "a value in each row")
    if pa.types.is_floating(column.type):
        _refuse(pc.invert(pc.is_finite(values)), values, name, where, "finite numbers, and null where there is none")
    low, high = column.low, column.high
    if low is not None or high is not None:
        below = (pc.less_equal if column.above else pc.less)(values, -float("inf") if low is None else low)
        over = pc.greater(values, float("inf") if high is None else high)
        least = "above" if column.above else "at least"
        allowed = f"{least} {low:g}" + ("" if high is None else f", at most {high:g}")
        _refuse(pc.or_(below, over), values, name, where, allowed)
    return values


def cast(values: pa.ChunkedArray, kind: pa.DataType, name: str, where: str) -> pa.ChunkedArray:
    """A column in another type.

    Raises:
        BadRequest: a value has no place in it.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        needed = "text" if pa.types.is_large_string(kind) or pa.types.is_string(kind) else "numbers"
        rule = f"column {name!r} of {where} must hold {needed}; got {values.type}: {error}"
        raise BadRequest(rule, param=name) from error


def _refuse(wrong: pa.ChunkedArray, values: pa.ChunkedArray, name: str, where: str, allowed: str) -> None:
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        got = values[row].as_py()
        shown = "empty" if got == "" else got
        raise BadRequest(f"row {row} of {where}: {name} is {shown}; allowed: {allowed}", param=name)
