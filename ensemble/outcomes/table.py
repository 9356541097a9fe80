"""The outcome table: which member answered which query how well, with how many tokens, at what cost and how fast.

Held in three Arrow tables, so that a query's text is there once however many answered it: queries, cells (one for each
answer) and members. Knows nothing of how a file is laid out, nor of routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.errors import BadRequest
from ensemble.outcomes import checks, files, joins, scatter
from ensemble.outcomes.dense import Bools, Dense, Floats, Ints
from ensemble.outcomes.schema import MEMBERS, QUERIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Outcomes of queries at members; not every query needs an outcome at every member, or at any.

    >>> cells = pa.table({"query_id": ["q", "q"], "member": ["a", "b"], "quality": [1.0, 0.0]})
    >>> Outcomes.of(cells).dense().quality.tolist()
    [[1.0, 0.0]]
    """

    queries: pa.Table
    """Columns of ``schema.QUERIES``; each query once. Its order is that of every view's rows."""
    cells: pa.Table
    """Columns of ``schema.CELLS``; each query, member and sample once."""
    members: pa.Table
    """Columns of ``schema.MEMBERS``; each member once. Its order is that of every view's columns."""
    features: Floats | None = None
    """[n, d], an embedding of each query that came with the table."""

    @classmethod
    def of(
        cls,
        cells: pa.Table,
        queries: pa.Table | None = None,
        members: pa.Table | None = None,
        features: Floats | None = None,
        where: str = "the table",
    ) -> Outcomes:
        """A table of what was read or made.

        Args:
            cells: answers; without ``queries``, columns of the queries may be among its own.
            members: omitted: those of the cells in the order of their first cell, of unknown prices.
            where: what the table is called in errors.

        Raises:
            BadRequest: naming the column, row or cell that cannot be used.
        """
        parts = checks.checked(files.Parts(queries, cells, members, features), where)
        return cls(queries=parts.queries, cells=parts.cells, members=parts.members, features=parts.features)

    def __len__(self) -> int:
        """Queries."""
        return int(self.queries.num_rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        return tuple(self.members["member"].to_pylist())

    def column(self, name: str) -> tuple[str, ...]:
        """A text column of the queries; empty texts where the table does not say."""
        if name not in self.queries.column_names:
            return ("",) * len(self)
        return tuple(self.queries[name].cast(pa.large_string()).fill_null("").to_pylist())

    def dense(self, members: Sequence[str] | None = None) -> Dense:
        """The view that routers are fitted to: a row for each query, a column for each member.

        Args:
            members: columns, in this order. Omitted: all.

        Raises:
            BadRequest: there is no such member.
        """
        names = self.names if members is None else tuple(members)
        self.require(names)
        places = scatter.Places.of(self.cells, self.queries["query_id"], names)
        texts = self.queries["text"].to_pylist() if "text" in self.queries.column_names else [None] * len(self)
        return Dense(
            queries=tuple(self.queries["query_id"].to_pylist()),
            texts=tuple(texts),
            members=names,
            tasks=self.column("task"),
            features=self.features,
            prices=scatter.prices(self.members, names),
            samples=places.samples(self.cells),
            **{name: places.means(self.cells, name) for name in scatter.FIGURES if name in self.cells.column_names},
            **({} if "quality" in self.cells.column_names else {"quality": places.nothing()}),
        )

    def require(self, members: Sequence[str]) -> None:
        """Refuse members that are not in the table.

        Raises:
            BadRequest: naming them and those there are.
        """
        if strangers := [name for name in members if name not in self.names]:
            rule = f"the table has no member {', '.join(strangers)}; it has: {', '.join(self.names)}"
            raise BadRequest(rule, param="members")

    def rows(self, rows: Ints | Bools | Sequence[int]) -> Outcomes:
        """Some of the queries, in this order, with their cells."""
        places = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, int)
        queries = self.queries.take(places)
        kept = pc.is_in(self.cells["query_id"], value_set=queries["query_id"].combine_chunks())
        features = None if self.features is None else self.features[places]
        return replace(self, queries=queries, cells=self.cells.filter(kept), features=features)

    def among(self, members: Sequence[str]) -> Outcomes:
        """The same queries at some of the members, in this order.

        Raises:
            BadRequest: there is no such member.
        """
        self.require(members)
        places = [self.names.index(name) for name in members]
        kept = pc.is_in(self.cells["member"], value_set=pa.array(list(members), pa.string()))
        return replace(self, members=self.members.take(places), cells=self.cells.filter(kept))

    def keeping(self, cells: Bools) -> Outcomes:
        """The same queries and members with some of the cells: the others become holes.

        Args:
            cells: [number of cells].
        """
        return replace(self, cells=self.cells.filter(pa.array(cells)))

    def append(self, other: Outcomes) -> Outcomes:
        """The outcomes of both; queries and members of this table come first.

        Raises:
            BadRequest: a cell is in both, or they differ in what they tell of a query or a member.
        """
        added = joins.new(self.queries, other.queries, "query_id")
        return Outcomes.of(
            pa.concat_tables([self.cells, other.cells], promote_options="default"),
            joins.united(self.queries, other.queries, "query_id"),
            joins.united(self.members, other.members, "member"),
            joins.stacked(self.features, other.features, added),
            where="the joined table",
        )

    def join(
        self, queries: pa.Table | None = None, members: pa.Table | None = None, features: Floats | None = None
    ) -> Outcomes:
        """The same outcomes with more told of queries and members; no row is added.

        Args:
            queries: columns of ``schema.QUERIES``, by ``query_id``.
            members: columns of ``schema.MEMBERS``, by ``member``.
            features: [n, d], in the order of this table's queries.

        Raises:
            BadRequest: something else is known already, or a column cannot be used.
        """
        told, cards = self.queries, self.members
        if queries is not None:
            told = joins.filled(told, checks.keyed(queries, QUERIES, "query_id", "what is joined"), "query_id")
        if members is not None:
            cards = joins.filled(cards, checks.keyed(members, MEMBERS, "member", "what is joined"), "member")
        return Outcomes.of(self.cells, told, cards, self.features if features is None else features)

    def write(self, path: Path | str) -> None:
        """Keep the table: in one file where the name ends with ``.parquet``, else in a folder of one file for each of
        its parts.

        Raises:
            BadRequest: one file cannot hold features, or the place cannot be written to.
        """
        files.write(Path(path), files.Whole(self.queries, self.cells, self.members, self.features))


def read(path: Path | str, *, responses: bool = True) -> Outcomes:
    """The table of a Parquet file, or of a folder with ``outcomes.parquet``.

    Beside it may lie ``queries.parquet``, ``members.parquet`` (or ``models.parquet``) and an embedding of each query,
    ``features.npy`` (or ``embeddings_*.npy``).

    Args:
        responses: whether to hold the answers' texts as well.

    Raises:
        BadRequest: naming the file, column, row or cell that cannot be used.
    """
    parts = files.read(Path(path), responses=responses)
    return Outcomes.of(parts.cells, parts.queries, parts.members, parts.features, where=str(path))
