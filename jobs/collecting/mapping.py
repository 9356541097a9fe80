"""From the columns of another table to those of an outcome table; wide tables, with a column for each member, as well.

Knows nothing of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.errors import BadRequest
from ensemble.outcomes.schema import ALIASES, CELLS, LONG, cast
from jobs.collecting.questions import named

_OF_A_CELL = tuple(name for name in CELLS if name not in ("query_id", "member", "sample"))
_WHERE = "the table"
_NOTHING = ("", "na", "n/a", "#n/a", "nan", "null", "none")
"""What stands for a missing number in tables of text, in small letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the columns of a table mean."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """By column of the outcome table, the table's own. Those that are not named keep their name where it is known."""
    wide: Mapping[str, str] = field(default_factory=dict)
    """By column of the outcome table, a pattern with one ``*`` in the place of the member's name."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Values that are the same in all rows."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """What numbers are multiplied with, by column of the outcome table."""

    def check(self) -> None:
        """
        Raises:
            BadRequest: a column is none of an outcome table, is told twice, or is no number where one is needed.
        """
        given = [*self.columns, *self.wide, *self.constants]
        for name in (*given, *self.factors):
            if name not in LONG:
                rule = f"an outcome table has no column {name!r}; it has: {', '.join(LONG)}"
                raise BadRequest(rule, param="map")
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise BadRequest(f"{twice[0]} is told twice; allowed: once", param="map")
        for name, pattern in self.wide.items():
            if pattern.count("*") != 1 or name not in _OF_A_CELL:
                rule = f"{name}={pattern}: give a pattern with one * for one of {', '.join(_OF_A_CELL)}"
                raise BadRequest(rule, param="wide")
        for name, factor in self.factors.items():
            if not pa.types.is_floating(LONG[name].type):
                raise BadRequest(f"{name} holds no numbers that can be scaled", param="scale")
            if not isfinite(factor):
                raise BadRequest(f"--scale {name}={factor}: the factor must be a finite number", param="scale")


class Mapped(NamedTuple):
    """A table in long form."""

    table: pa.Table
    left_out: tuple[str, ...]
    """Columns of the other table that nothing was made of."""


def mapped(table: pa.Table, meaning: Meaning) -> Mapped:
    """The table in long form, with names for its queries.

    Raises:
        BadRequest: a column is missing, or nothing says what was asked or who answered.
    """
    meaning.check()
    spread = {target: _matching(table, pattern) for target, pattern in meaning.wide.items()}
    of_members = {own for found in spread.values() for own in found.values()}
    sources = _sources(table, meaning, of_members)
    plain = {target: _plain(table[own], target) for target, own in sources.items()}
    for target, value in meaning.constants.items():
        plain[target] = _plain(pa.chunked_array([pa.array([value] * table.num_rows, pa.string())]), target)
    if "query_id" not in plain:
        plain["query_id"] = _names(plain.get("text"), table.num_rows, rows_are_queries=bool(spread))
    long = _melted(table, pa.table(plain), spread) if spread else pa.table(plain)
    if "member" not in long.column_names:
        rule = "nothing says who answered: give --map member=COLUMN, --set member=NAME or --wide 'PREFIX*'"
        raise BadRequest(rule, param="map")
    used = {*sources.values(), *of_members}
    return Mapped(_scaled(long, meaning.factors), tuple(name for name in table.column_names if name not in used))


def numbered(table: pa.Table) -> pa.Table:
    """The table with a sample number for each further answer of a member to a query, in the order of the rows.

    Raises:
        BadRequest: it has sample numbers of its own.
    """
    if "sample" in table.column_names:
        raise BadRequest("the table numbers its samples itself; leave --repeats out", param="repeats")
    keys = zip(table["query_id"].to_pylist(), table["member"].to_pylist(), strict=True)
    seen: dict[tuple[str, str], int] = {}
    numbers = []
    for key in keys:
        numbers.append(seen.get(key, 0))
        seen[key] = numbers[-1] + 1
    return table.append_column("sample", pa.array(numbers, pa.int32()))


def _sources(table: pa.Table, meaning: Meaning, of_members: Iterable[str]) -> dict[str, str]:
    """By column of the outcome table, the table's own."""
    for own in meaning.columns.values():
        if own not in table.column_names:
            raise BadRequest(f"the table has no column {own!r}; it has: {', '.join(table.column_names)}", param="map")
    sources = dict(meaning.columns)
    taken = {*sources.values(), *of_members}
    for own in table.column_names:
        target = ALIASES[own][0] if own in ALIASES else own
        if target in LONG and own not in taken and target not in {*sources, *meaning.wide, *meaning.constants}:
            sources[target] = own
    return sources


def _matching(table: pa.Table, pattern: str) -> dict[str, str]:
    """By member, the column that the pattern finds."""
    before, _, after = pattern.partition("*")
    around = len(before) + len(after)
    fits = [name for name in table.column_names if name.startswith(before) and name.endswith(after)]
    members = {name[len(before) : len(name) - len(after)]: name for name in fits if len(name) > around}
    if not members:
        has = ", ".join(table.column_names)
        raise BadRequest(f"no members' columns match {pattern!r}; the table has: {has}", param="wide")
    return members


def _names(texts: pa.ChunkedArray | None, rows: int, rows_are_queries: bool) -> pa.Array:
    """A name for each query: of its text as in a collection, else of its row where each row is a query."""
    if texts is not None:
        return pa.array([None if text is None else named(json.dumps(text)) for text in texts.to_pylist()], pa.string())
    if not rows_are_queries:
        raise BadRequest("nothing names the queries: give --map query_id=COLUMN or --map text=COLUMN", param="map")
    return pa.array([str(row) for row in range(rows)], pa.string())


def _melted(table: pa.Table, plain: pa.Table, spread: Mapping[str, Mapping[str, str]]) -> pa.Table:
    """One row for each query and member of whom anything is told."""
    if "member" in plain.column_names:
        raise BadRequest("a wide table names members in its columns; leave member out", param="wide")
    members: Sequence[str] = list(dict.fromkeys(member for found in spread.values() for member in found))
    parts = []
    for member in members:
        part = plain.append_column("member", pa.array([member] * table.num_rows, pa.string()))
        told = np.zeros(table.num_rows, bool)
        for target, found in spread.items():
            values = table[found[member]] if member in found else pa.chunked_array([pa.nulls(table.num_rows)])
            part = part.append_column(target, _plain(values, target))
            told |= part[target].is_valid().to_numpy()
        parts.append(part.filter(pa.array(told)))
    return pa.concat_tables(parts, promote_options="permissive")


def _scaled(table: pa.Table, factors: Mapping[str, float]) -> pa.Table:
    for name, factor in factors.items():
        if name not in table.column_names:
            rule = f"nothing tells {name}, which is to be scaled; there are: {', '.join(table.column_names)}"
            raise BadRequest(rule, param="scale")
        table = table.set_column(table.column_names.index(name), name, pc.multiply(table[name], factor))
    return table


def _plain(values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column as text or as numbers, as it has to be; in tables of others NaN stands for what is missing."""
    kind = LONG[name].type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return cast(values, pa.large_string(), name, _WHERE)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = _spelled(values)
    numbers = cast(values, pa.float64(), name, _WHERE)
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


def _spelled(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts that a number can be read from; null for what says that there is none."""
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    known = pc.if_else(pc.is_in(plain, value_set=pa.array(_NOTHING, plain.type)), pa.scalar(None, plain.type), plain)
    return pc.if_else(pc.equal(known, "true"), "1", pc.if_else(pc.equal(known, "false"), "0", known))
