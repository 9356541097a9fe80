"""What makes three tables one: each query, member and cell once, and no cell of what is not there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats
from ensemble.outcomes.files import Parts, Whole, parted
from ensemble.outcomes.schema import CELLS, MEMBERS, QUERIES, Column, shaped, unique


def checked(parts: Parts, where: str) -> Whole:
    """All parts with the types that they must have; those that are missing are made of the cells.

    Args:
        where: what the table is called in errors.

    Raises:
        BadRequest: naming the column, row or cell that cannot be used.
    """
    queries, cells = parts.queries, parts.cells
    if queries is None:
        queries, cells = parted(cells, where)
    cells = _sampled(shaped(cells, CELLS, where))
    unique(cells, [key for key in ("query_id", "member", "sample") if key in cells.column_names], where)
    queries = keyed(queries, QUERIES, "query_id", f"the queries of {where}")
    members = parts.members
    if members is None:
        members = pa.table({"member": pc.unique(cells["member"])})
    members = keyed(members, MEMBERS, "member", f"the members of {where}")
    _known(cells, "query_id", queries, where)
    _known(cells, "member", members, where)
    return Whole(queries, cells, members, _featured(parts.features, queries.num_rows, where))


def keyed(table: pa.Table, columns: Mapping[str, Column], key: str, where: str) -> pa.Table:
    """The table with its columns' types, each key once.

    Raises:
        BadRequest: naming the column, row or key that cannot be used.
    """
    given = shaped(table, columns, where)
    unique(given, [key], where)
    return given


def _sampled(cells: pa.Table) -> pa.Table:
    """Answers that no sample number tells apart are the first."""
    if "sample" not in cells.column_names:
        return cells
    return cells.set_column(cells.column_names.index("sample"), "sample", cells["sample"].fill_null(0))


def _known(cells: pa.Table, key: str, among: pa.Table, where: str) -> None:
    """Refuse cells of a query or member that is not among them."""
    strange = pc.invert(pc.is_in(cells[key], value_set=among[key].combine_chunks()))
    row = pc.index(strange, True).as_py()
    if row >= 0:
        rule = f"row {row} of {where}: {key} {cells[key][row].as_py()!r} is not among its {among.num_rows}"
        raise BadRequest(f"{rule} {'queries' if key == 'query_id' else 'members'}", param=key)


def _featured(features: Floats | None, queries: int, where: str) -> Floats | None:
    if features is None:
        return None
    if features.ndim != 2 or len(features) != queries:
        rule = f"the features of {where} have the shape {features.shape}; needed: a row for each of {queries} queries"
        raise BadRequest(rule, param="features")
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise BadRequest(f"row {row} of the features of {where} holds what is no number", param="features")
    return features
