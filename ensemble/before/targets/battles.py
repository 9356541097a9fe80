"""Battles: which of two members did better on a query; made of an outcome table, ties and holes included.

Knows nothing of what is fitted to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.outcomes.dense import Dense, Floats, Ints

_CELLS = 4_000_000
"""Pairs that are drawn from at once: bounds memory, not results."""


@dataclass(frozen=True, slots=True)
class Battles:
    """B comparisons of two members each, in the order of their queries."""

    rows: Ints
    """[B], the query, a row of the table."""
    first: Ints
    """[B], a member."""
    second: Ints
    """[B], another member."""
    score: Floats
    """[B], what the first got: 1 a win, 0.5 a tie, 0 a loss; between them where a battle stands for several."""

    def __len__(self) -> int:
        return len(self.rows)


def battles(table: Dense, most: int | None = None, margin: float = 0.0, seed: int = 0) -> Battles:
    """All pairs of members that were observed on one query; a query with fewer than two tells nothing.

    >>> two = Dense(queries=("q",), texts=(None,), members=("a", "b"), quality=np.array([[1.0, 0.0]]))
    >>> battles(two).score.tolist()
    [1.0]

    Args:
        most: battles of one query; more are drawn from by the seed. ``None``: all.
        margin: qualities that differ by this much or less tie.
    """
    first, second = np.triu_indices(len(table.members), 1)
    block = max(1, _CELLS // max(1, len(first)))
    random = np.random.default_rng([seed, 11])
    found = [
        _block(table.quality[start : start + block], start, first, second, most, random)
        for start in range(0, len(table), block)
    ]
    rows, pairs = (np.concatenate([part[i] for part in found] or [np.zeros(0, int)]) for i in (0, 1))
    gap = table.quality[rows, first[pairs]] - table.quality[rows, second[pairs]]
    return Battles(rows, first[pairs], second[pairs], 0.5 + 0.5 * np.sign(gap) * (np.abs(gap) > margin))


def _block(
    quality: Floats, start: int, first: Ints, second: Ints, most: int | None, random: np.random.Generator
) -> tuple[Ints, Ints]:
    """Rows and pairs, in order, of some queries."""
    both = ~np.isnan(quality[:, first] + quality[:, second])
    if most is not None and most < len(first):
        keys = np.where(both, random.random(both.shape), np.inf)
        kept = np.zeros_like(both)
        np.put_along_axis(kept, np.argpartition(keys, most - 1, axis=1)[:, :most], True, axis=1)
        both &= kept
    rows, pairs = np.nonzero(both)
    return rows + start, pairs


def wins(found: Battles, queries: int, groups: Ints) -> Floats:
    """[n, T, T] float32, points that group i took from group j on each query; battles within a group do not count.

    Args:
        queries: n.
        groups: [M], the group of each member, 0 to T - 1.
    """
    count = int(groups.max()) + 1
    points = np.zeros((queries, count, count), np.float32)
    first, second = groups[found.first], groups[found.second]
    other = first != second
    np.add.at(points, (found.rows[other], first[other], second[other]), found.score[other])
    np.add.at(points, (found.rows[other], second[other], first[other]), 1 - found.score[other])
    return points


def expected_score(quality: float, expectation: float) -> float:
    """What an answer of this quality may expect against one that is right with a probability: (1 + q - e) ÷ 2.

    A right answer beats a wrong one and ties with a right one, so this is exact for qualities of 0 and 1; between them
    it is linear. It makes a battle of a single outcome.

    >>> expected_score(1.0, 0.6), expected_score(0.0, 0.6)
    (0.7, 0.2)
    """
    return (1 + quality - expectation) / 2
