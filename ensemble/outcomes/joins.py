"""Tables put together by a key: what one does not say is taken from the other, and they may not contradict."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats


def filled(left: pa.Table, right: pa.Table, key: str) -> pa.Table:
    """The left table's rows, in its order, with what the right one knows of them; rows of the right alone are left.

    Both have each key once, and equal types where they have a column in common.

    Raises:
        BadRequest: they tell different things of a key.
    """
    there = right.take(pc.index_in(left[key], value_set=right[key].combine_chunks()))
    columns = {name: left[name] for name in left.column_names}
    for name in right.column_names:
        if name not in columns:
            columns[name] = there[name]
            continue
        row = pc.index(pc.not_equal(columns[name], there[name]), True).as_py()
        if row >= 0:
            got = f"{columns[name][row].as_py()!r} and {there[name][row].as_py()!r}"
            raise BadRequest(f"the tables differ in {name} of {key} {left[key][row].as_py()!r}: {got}", param=name)
        columns[name] = pc.coalesce(columns[name], there[name])
    return pa.table(columns)


def united(left: pa.Table, right: pa.Table, key: str) -> pa.Table:
    """The rows of both, the left one's first.

    Raises:
        BadRequest: they tell different things of a key.
    """
    return pa.concat_tables([filled(left, right, key), right.filter(new(left, right, key))], promote_options="default")


def new(left: pa.Table, right: pa.Table, key: str) -> pa.ChunkedArray:
    """[rows of the right table], those that the left one does not have."""
    return pc.invert(pc.is_in(right[key], value_set=left[key].combine_chunks()))


def stacked(left: Floats | None, right: Floats | None, added: pa.ChunkedArray) -> Floats | None:
    """Features of the left queries and of those of the right ones that are added.

    Raises:
        BadRequest: only one table has them, or they are of different widths.
    """
    rows = np.asarray(added.to_numpy(), bool)
    if not rows.any() or (left is None and right is None):
        return left
    if left is None or right is None or left.shape[1] != right.shape[1]:
        widths = " and ".join("none" if part is None else str(part.shape[1]) for part in (left, right))
        raise BadRequest(f"the tables' features must be equally wide; got {widths}", param="features")
    both: Floats = np.concatenate([left, right[rows]])
    return both
