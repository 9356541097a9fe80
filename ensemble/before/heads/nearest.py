"""The stored rows that are most similar to a query: among all of them, or in the cells where they are likely to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from ensemble.before.heads.cells import Cells
from ensemble.outcomes.dense import Floats, Ints

Search = Literal["auto", "exact", "cells"]
"""Where the nearest rows are sought: exact, among all of them; cells, in the nearest cells; auto, by their number."""

EXACT = 8192
"""Rows up to which ``auto`` compares a query with all of them: cells would hardly be faster."""
_LEAST = 3072
_TIMES = 4
"""Rows that a query is compared with in cells, for each that is sought and at least, where nothing else is said."""
_CELLS = 2**24
"""Similarities that are held at once: bounds memory, not results."""


def indexed(search: Search, rows: Floats, cells: Cells | None) -> Cells | None:
    """The cells of a store [N, d]; those that it had, if it needs some."""
    if search == "exact" or not len(rows) or (search == "auto" and cells is None and len(rows) <= EXACT):
        return None
    return cells or Cells.built(rows)


def appended_to(search: Search, rows: Floats, cells: Cells | None) -> Cells | None:
    """The cells of a store [N, d] whose last row is new."""
    if cells is not None:
        cells.append(rows)
        return cells
    many = search == "cells" or (search == "auto" and len(rows) > EXACT)
    return Cells.halved(rows) if many else None


def nearest(
    x: Floats, rows: Floats, k: int, cells: Cells | None = None, compared: int | None = None
) -> tuple[Ints, Floats]:
    """The k most similar rows, in no order: places and similarities, both [n, min(k, N)].

    Args:
        x: [n, d], queries, unit rows.
        rows: [N, d] float32, the store, unit rows.
        cells: of the store; ``None``: all rows are compared.
        compared: rows of the nearest cells that a query is compared with at least; ``None``: four for each that is
            sought, and 3,072 at least.
    """
    x = x.astype(np.float32, copy=False)
    if cells is not None:
        return cells.nearest(x, rows, k, max(k, compared or max(_LEAST, _TIMES * k)))
    found = [nearest_rows(x[block] @ rows.T, k) for block in blocks(len(x), len(rows))]
    places = np.concatenate([np.zeros((0, min(k, len(rows))), int), *(pair[0] for pair in found)])
    return places, np.concatenate([np.zeros(places[:0].shape, np.float32), *(pair[1] for pair in found)])


def blocks(queries: int, store: int) -> Iterator[slice]:
    """Queries that are compared with so many rows at once."""
    size = max(1, _CELLS // max(store, 1))
    return (slice(start, start + size) for start in range(0, queries, size))


def nearest_rows(similarity: Floats, k: int) -> tuple[Ints, Floats]:
    """The k most similar columns of each row [n, N], in no order: places and similarities, both [n, min(k, N)]."""
    if k >= similarity.shape[1]:
        places = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    else:
        places = np.argpartition(similarity, -k, axis=1)[:, -k:]
    return places, np.take_along_axis(similarity, places, axis=1)
