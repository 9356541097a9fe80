"""Cells: rows that are like each other lie together, so that a query is compared with those of the nearest cells alone.

An inverted file (arXiv 1702.08734) over rows that their owner keeps, which grows and shrinks with them. Knows nothing
of what the rows stand for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ensemble.before.heads.store import appended
from ensemble.before.routing.parts import Part
from ensemble.before.targets.tags import unit
from ensemble.outcomes.dense import Floats, Ints

AWAY = -4.0
"""Similarity of what is not there: below every one of unit rows."""
_FULL = 512
"""Rows of a cell, beyond which it is halved."""
_SAMPLE = 64
"""Rows for each cell that the first centres are made of."""
_CENTRES = 1024
"""Cells that k-means makes at most; halving makes the others."""
_LEAST = 1 / 64
"""Of a cell's rows, that are a part of their own."""
_TAIL = 256
"""Rows that came or went since the cells' rows were listed, beyond which they are listed anew."""
_BLOCK = 8192
"""Rows that are put into cells at once: bounds memory, not results."""
_HELD = 2**23
"""Similarities that are held at once: bounds memory, not results."""
_FEW = 4
"""Queries up to which each reads the rows of its cells for itself, which is faster."""
_PART = 64
"""Queries whose nearest rows are chosen at once: as many as a processor's cache is large."""


class Visit(NamedTuple):
    """Queries that are compared with the same rows."""

    queries: Ints
    """[m]."""
    turn: Ints
    """[m], the how manieth visit this is to each of them; less than P."""
    places: Ints
    """[s], of the rows."""
    similarity: Floats
    """[m, s]."""


@dataclass
class Cells(Part, kind="cells"):
    """Which cell each row of a store lies in: that of the most similar centre when it came."""

    centres: Floats
    """[C, d] float32, unit rows: mean directions of the cells when they were made."""
    of: Ints
    """[capacity] int32, the cell of each row, in the rows' order, of which ``count`` hold one."""
    count: int

    def __post_init__(self) -> None:
        self.listings = 0
        """How many times the rows of the cells have been listed; what was made of a list holds until the next one."""
        self._gone = 0
        self._order: Ints = np.zeros(0, int)
        self._list()

    @classmethod
    def built(cls, rows: Floats) -> Cells:
        """By k-means of a sample.

        Args:
            rows: [N, d] float32, unit rows, N ≥ 1.
        """
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        count = min(-(-2 * len(rows) // _FULL), _CENTRES)
        order = np.random.default_rng(17).permutation(len(rows))[: _SAMPLE * count]
        means = KMeans(count, init="random", n_init=1, max_iter=5, random_state=17)
        with warnings.catch_warnings():
            # Of equal rows there are fewer cells; halving makes up for it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            means.fit(rows[np.sort(order)])
        return cls._around(unit(means.cluster_centers_), rows)

    @classmethod
    def halved(cls, rows: Floats) -> Cells:
        """By halving alone: neighbours are parted a little more often than by k-means, but it is done at once."""
        first = cls._around(unit(rows.mean(axis=0, keepdims=True)), rows)
        return cls._around(first.centres, rows)

    @classmethod
    def _around(cls, centres: Floats, rows: Floats) -> Cells:
        centres = centres.astype(np.float32)
        found = cls(centres, _closest(rows, centres), len(rows))
        found._halve(rows)
        return found

    def extended(self, rows: Floats) -> Cells:
        """The same cells with more rows, in arrays of their own.

        Args:
            rows: [N, d], the whole store, whose first rows are in cells.
        """
        new = _closest(rows[self.count :], self.centres)
        wider = replace(self, of=np.concatenate([self.of[: self.count], new]), count=len(rows))
        wider._halve(rows)
        return wider

    def append(self, rows: Floats) -> None:
        """Take in the last of the store's rows [N, d]; that takes time in proportion to C · d, on average."""
        cell = int((self.centres @ rows[-1]).argmax())
        self.of = appended(self.of, self.count, cell)
        self._order = appended(self._order, int(self._ends[-1]), self.count + self._gone)
        self._ends[-1] += 1
        self.count += 1
        self._held[cell] += 1
        if self._held[cell] > _FULL:
            self._halve(rows)
        elif self._ends[-1] - self._begins[-1] >= _TAIL:
            self._list()

    def drop(self) -> None:
        """Forget the first of the store's rows."""
        cell = int(self.of[0])
        self.of, self.count = self.of[1:], self.count - 1
        self._held[cell] -= 1
        # The rows of a cell are listed in their order, so that its first one goes.
        self._begins[cell if self._gone < self._listed else -1] += 1
        self._gone += 1
        if self._gone >= _TAIL:
            self._list()

    def nearest(self, x: Floats, rows: Floats, k: int, least: int) -> tuple[Ints, Floats]:
        """The k most similar of the rows in the nearest cells, in no order: places and similarities, [n, min(k, N)].

        Args:
            x: [n, d] float32, queries.
            rows: [N, d], the store.
            least: rows that each query is compared with, or all there are; at least k.
        """
        k = min(k, self.count)
        places, similarity = np.empty((len(x), k), int), np.empty((len(x), k), np.float32)
        for block in _blocks(len(x), least):
            probes = self.probes(x[block], least)
            find = self._alone if len(probes) <= _FEW else self._together
            places[block], similarity[block] = find(x[block], rows, k, probes)
        return places, similarity

    def _alone(self, x: Floats, rows: Floats, k: int, probes: Ints) -> tuple[Ints, Floats]:
        """[n, k], of queries that have a visit each."""
        visits = list(self.visits(x, rows, probes))
        near = [np.argpartition(visit.similarity[0], -k)[-k:] for visit in visits]
        found = [(visit.places[best], visit.similarity[0, best]) for visit, best in zip(visits, near, strict=True)]
        return np.array([pair[0] for pair in found]), np.array([pair[1] for pair in found])

    def _together(self, x: Floats, rows: Floats, k: int, probes: Ints) -> tuple[Ints, Floats]:
        """[n, k], of queries that share the reading of a cell."""
        width = int((self._ends - self._begins).max())
        # What is not there is given many values: a selection among equal ones takes twenty times as long.
        away = AWAY - np.linspace(0, 1, probes.shape[1] * width, dtype=np.float32)
        found = np.tile(away.reshape(-1, width), (len(x), 1, 1))
        for visit in self.visits(x, rows, probes):
            found[visit.queries, visit.turn, : len(visit.places)] = visit.similarity
        parts = (slice(start, start + _PART) for start in range(0, len(x), _PART))
        chosen = [self._chosen(found[part].reshape(-1, len(away)), probes[part], k) for part in parts]
        return np.concatenate([pair[0] for pair in chosen]), np.concatenate([pair[1] for pair in chosen])

    def _chosen(self, similarity: Floats, probes: Ints, k: int) -> tuple[Ints, Floats]:
        """[n, k] of similarities [n, P · width] to the rows of cells [n, P]."""
        near = np.argpartition(similarity, -k, axis=1)[:, -k:]
        turn, rank = np.divmod(near, similarity.shape[1] // probes.shape[1])
        places = self._begins[np.take_along_axis(probes, turn, axis=1)] + rank
        return self._order[places] - self._gone, np.take_along_axis(similarity, near, axis=1)

    def probes(self, x: Floats, least: int) -> Ints:
        """[n, P], the cells that each query is compared with: that of the latest rows, then the most similar ones until
        they hold so many rows; -1 from there on."""
        ranked = np.argsort(-(x @ self.centres.T), axis=1)
        held = (self._ends - self._begins)[ranked]
        needed = np.cumsum(held, axis=1) - held < least
        width = int(needed.sum(axis=1).max(initial=0))
        first = np.full((len(x), 1), len(self.centres))
        return np.hstack([first, np.where(needed, ranked, -1)[:, :width]])

    def visits(self, x: Floats, rows: Floats, probes: Ints) -> Iterator[Visit]:
        """Comparisons of queries [n, d] with the rows [N, d] of their cells [n, P]: cell by cell, or query by query
        where these are few."""
        if len(x) <= _FEW:
            for query, cells in enumerate(probes):
                places = np.concatenate([self.places(cell) for cell in cells if cell >= 0])
                yield Visit(np.array([query]), np.zeros(1, int), places, x[query : query + 1] @ rows[places].T)
            return
        pairs = np.argsort(probes, axis=None, kind="stable")
        ends = np.searchsorted(probes.ravel()[pairs], np.arange(-1, len(self.centres) + 1), side="right")
        for cell in range(len(ends) - 1):
            places = self.places(cell)
            queries, turn = np.divmod(pairs[ends[cell] : ends[cell + 1]], probes.shape[1])
            if len(queries) and len(places):
                yield Visit(queries, turn, places, x[queries] @ rows[places].T)

    def places(self, cell: int) -> Ints:
        """[s], of the rows of a cell, ascending; of the latest rows, which are in no list yet, at number C."""
        return self._order[self._begins[cell] : self._ends[cell]] - self._gone

    def _halve(self, rows: Floats) -> None:
        """Part the cells that are too full, into halves as long as it takes, and list all."""
        of, centres = self.of[: self.count].copy(), list(self.centres)
        full = np.flatnonzero(np.bincount(of) > _FULL).tolist()
        while full:
            cell = full.pop()
            mine = np.flatnonzero(of == cell)
            halves = _halves(rows[mine])
            of[mine[halves[1]]] = len(centres)
            centres[cell], other = (unit(rows[mine[half]].mean(axis=0, keepdims=True))[0] for half in halves)
            full += [number for number, half in zip((cell, len(centres)), halves, strict=True) if len(half) > _FULL]
            centres.append(other)
        self.of, self.centres = of, np.array(centres, np.float32)
        self._list()

    def _list(self) -> None:
        """Write down where the rows of each cell are; cells without any are no more."""
        of = self.of[: self.count]
        held = np.bincount(of, minlength=len(self.centres))
        if not held.all():
            self.centres = self.centres[held > 0]
            self.of = of = (np.cumsum(held > 0, dtype=np.int32) - 1)[of]
            held = held[held > 0]
        ends = np.append(np.cumsum(held), self.count)
        self._held, self._begins, self._ends = held, ends - np.append(held, 0), ends
        # Small integers are sorted in time proportional to their number.
        self._order = np.argsort(of.astype(np.min_scalar_type(len(held))), kind="stable")
        self._listed, self._gone = self.count, 0
        self.listings += 1


def _blocks(queries: int, least: int) -> Iterator[slice]:
    """Queries that are compared with so many rows at once; what cells hold of others takes about as much again."""
    size = max(1, _HELD // (2 * least))
    return (slice(start, start + size) for start in range(0, queries, size))


def _closest(rows: Floats, centres: Floats) -> Ints:
    """[N] int32, the most similar centre of each row."""
    starts = range(0, len(rows), _BLOCK)
    found = [(rows[start : start + _BLOCK] @ centres.T).argmax(axis=1) for start in starts]
    return np.asarray(np.concatenate([np.zeros(0, int), *found]), np.int32)


def _halves(rows: Floats) -> list[Ints]:
    """Places of the rows that are nearer to one or to the other of two that are far apart; if nearly all are nearer to
    one, on either side of the median."""
    one = rows[(rows @ rows.mean(axis=0)).argmin()]
    other = rows[(rows @ one).argmin()]
    between = rows @ (one - other)
    count = int(np.count_nonzero(between < 0))
    if not _LEAST <= count / len(rows) <= 1 - _LEAST:
        count = len(rows) // 2
    order = np.argpartition(between, count)
    return [order[:count], order[count:]]
