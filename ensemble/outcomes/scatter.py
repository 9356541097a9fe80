"""From the long form to the dense one: where each cell goes, without a step for each row in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.outcomes.dense import Bools, Floats, Ints

FIGURES = ("quality", "cost", "input_tokens", "output_tokens", "latency", "propensity")
"""Columns of cells that have a dense array."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the cells of a table go in an array [n, M]."""

    kept: Bools
    """[cells], those of the wanted members."""
    flat: Ints
    """[kept], row · M + column."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, cells: pa.Table, queries: pa.ChunkedArray, members: Sequence[str]) -> Places:
        rows = _index(cells["query_id"], queries.combine_chunks())
        columns = _index(cells["member"], pa.array(list(members), pa.string()))
        kept = (rows >= 0) & (columns >= 0)
        flat = rows[kept].astype(np.int64) * len(members) + columns[kept]
        return cls(kept, flat, (len(queries), len(members)))

    def nothing(self) -> Floats:
        """[n, M], all holes."""
        return np.full(self.shape, np.nan, np.float32)

    def means(self, cells: pa.Table, name: str) -> Floats:
        """[n, M] float32 of a column: the mean over the samples of a cell that have a value, NaN where none has."""
        values = self._values(cells, name)
        seen = ~np.isnan(values)
        flat, size = self.flat[seen], self.shape[0] * self.shape[1]
        sums = np.bincount(flat, values[seen], size)
        counts = np.bincount(flat, minlength=size)
        with np.errstate(invalid="ignore"):
            means: Floats = (sums / counts).astype(np.float32)
        return means.reshape(self.shape)

    def samples(self, cells: pa.Table) -> Floats | None:
        """[n, M, S] float32, quality of single samples; ``None`` where no cell has a second one.

        Of each cell in the order of their numbers, whatever these are: they may be anything that tells them apart.
        """
        if "sample" not in cells.column_names or "quality" not in cells.column_names:
            return None
        which = _ranks(self.flat, cells["sample"].fill_null(0).to_numpy()[self.kept])
        if not len(which) or which.max() == 0:
            return None
        found = np.full((*self.shape, int(which.max()) + 1), np.nan, np.float32)
        found.reshape(-1)[self.flat * found.shape[2] + which] = self._values(cells, "quality")
        return found

    def _values(self, cells: pa.Table, name: str) -> Floats:
        values: Floats = cells[name].to_numpy()[self.kept]
        return values


def prices(members: pa.Table, names: Sequence[str]) -> Floats:
    """[M, 2], money per token read and written; NaN where unknown."""
    found = np.full((len(names), 2), np.nan)
    places = pc.index_in(pa.array(list(names), pa.string()), value_set=members["member"].combine_chunks()).to_numpy()
    for column, name in enumerate(("input_price", "output_price")):
        if name in members.column_names:
            found[:, column] = members[name].to_numpy()[places]
    return found


def _ranks(groups: Ints, numbers: Ints) -> Ints:
    """[k], the place of each number among those of its group, from 0."""
    order = np.lexsort((numbers, groups))
    _, size = np.unique(groups, return_counts=True)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(np.cumsum(size) - size, size)
    return ranks


def _index(values: pa.ChunkedArray, among: pa.Array) -> Ints:
    """[len(values)], the place of each value; −1 where it is not among them."""
    places: Ints = pc.index_in(values, value_set=among).fill_null(-1).to_numpy()
    return places
