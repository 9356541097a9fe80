"""What ``ensemble tune`` chooses among: weights on a simplex grid, so members too, and values of options.

A weight of 0 leaves a member uncalled, so with methods that have weights a subset of the members is a weight vector and
all candidates are requests to one ensemble. Methods without weights get an ensemble for each subset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from math import comb, gcd
from typing import Any

import yaml

from ensemble.errors import BadRequest
from ensemble.method import named, refusals

NAME = "tuned"
"""Of the ensemble that is asked where the configuration has none of the method over the members, and of what is
chosen."""

_MOST = 10_000
Weights = tuple[int, ...]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to combine the members."""

    ensemble: str
    """Name of the ensemble that is asked."""
    members: tuple[str, ...]
    """Members of that ensemble."""
    options: str
    """Of each request, as JSON with sorted keys."""

    @property
    def given(self) -> dict[str, Any]:
        """The options as values."""
        return dict(json.loads(self.options))

    @property
    def called(self) -> tuple[str, ...]:
        """Members that are asked: those with weight."""
        weights = self.given.get("weights", [1] * len(self.members))
        if weights == "average":
            return self.members
        return tuple(name for name, weight in zip(self.members, weights, strict=True) if weight)

    @property
    def words(self) -> str:
        """For people."""
        given = self.given
        weights = given.pop("weights", None)
        numbers = weights if isinstance(weights, list) else [1] * len(self.members)
        parts = [
            f"{name} {weight:g}" if weights is not None else name
            for name, weight in zip(self.members, numbers, strict=True)
            if weight
        ]
        return ", ".join([*parts, *(f"{key}={value}" for key, value in given.items())])


def simplex(members: int, steps: int) -> list[Weights]:
    """Weights in whole steps that at least two members share, in smallest numbers; all equal first.

    >>> simplex(2, 4), len(simplex(3, 4))
    ([(1, 1), (1, 3), (3, 1)], 13)

    Raises:
        BadRequest: there are more than anybody will try.
    """
    if (count := comb(steps + members - 1, members - 1)) > _MOST:
        raise BadRequest(f"{count} vectors of weights are too many; lower --steps or give fewer members", param="steps")
    bars = combinations(range(steps + members - 1), members - 1)
    vectors = (_between((-1, *bar, steps + members - 1)) for bar in bars)
    shared = (vector for vector in vectors if sum(number > 0 for number in vector) > 1)
    return list(dict.fromkeys([(1,) * members, *map(_smallest, shared)]))


def _between(bars: Sequence[int]) -> Weights:
    return tuple(right - left - 1 for left, right in pairwise(bars))


def _smallest(vector: Weights) -> Weights:
    divisor = gcd(*vector)
    return tuple(number // divisor for number in vector)


def grid_of(given: Iterable[str]) -> dict[str, list[Any]]:
    """Values to try, given as OPTION=VALUE,VALUE,…; each is read as YAML.

    >>> grid_of(["threshold=.5,.7", "weights=[1, 2],[2, 1]"])
    {'threshold': [0.5, 0.7], 'weights': [[1, 2], [2, 1]]}

    Raises:
        BadRequest: it has another form.
    """
    grid: dict[str, list[Any]] = {}
    for pair in given:
        key, _, values = pair.partition("=")
        try:
            read = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError as error:
            raise BadRequest(f"the values of --grid {pair} are no YAML") from error
        if not key or not read:
            raise BadRequest(f"--grid {pair} is not OPTION=VALUE,VALUE,…")
        grid[key] = read
    return grid


def points(grid: Mapping[str, Sequence[Any]]) -> Iterator[Values]:
    """Every combination of values, the first values first."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def weighted(method: str) -> bool:
    """Whether the method has weights of its members.

    Raises:
        ConfigurationError: there is no such method.
    """
    return "weights" in named(method).Options.model_fields and not refusals(method, {"weights": [1.0]})


def subsets(members: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All members, and all but one where at least two are left.

    >>> list(subsets(["a", "b", "c"]))
    [('a', 'b', 'c'), ('b', 'c'), ('a', 'c'), ('a', 'b')]
    """
    yield tuple(members)
    if len(members) > 2:
        yield from (tuple(m for m in members if m != left_out) for left_out in members)
