"""kNN router: a member answers a query as well as it answered the most similar queries of the past."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.costs.cost import known
from ensemble.before.fitting.searching import SearchOptions
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.member import Capability
from ensemble.method import Stage, method

_GRID = tuple(2**power for power in range(11))
_HELD = 2048
"""Queries that k is chosen on at most."""


class KnnFit(SearchOptions):
    """Options of the fit of ``knn_router``."""

    k: int | None = Field(default=None, ge=1)
    """Neighbours. Omitted: the best of 1, 2, 4, … 1024 on 2,048 of the queries, each by all others."""
    weighting: Literal["equal", "similarity", "softmax"] = "equal"
    """What a neighbour counts: all the same; its similarity, where positive; or e^(similarity ÷ temperature).
    Omitted: all the same."""
    temperature: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Of the weighting ``softmax``; no other one reads it. Omitted: 0.1."""
    pseudo: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Observations that a member's overall mean counts for. Omitted: 1."""
    cap: int = Field(default=0, ge=0)
    """Queries that are kept at most, the last ones of the table; in service the oldest is dropped for a new one.
    0: all. Omitted: 0."""
    half_life: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Outcomes learned in service after which an older one counts half; 0: never. Omitted: 0."""

    @model_validator(mode="after")
    def _read(self) -> KnnFit:
        if "temperature" in self.model_fields_set and self.weighting != "softmax":
            raise ValueError(f"weighting {self.weighting} has no temperature; it goes with weighting softmax")
        return self


@method("knn_router", stage=Stage.BEFORE, paper="2505.12601", needs={Capability.GENERATE}, options=RoutingOptions)
class KnnRouter(Routing):
    """Mean quality over the k most similar queries (arXiv 2505.12601); the reference that every router has to beat.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * k is chosen on queries left out where it is not given: small ones do worse than the best single member.
    * Neighbours are sought, for each member, among the queries at which it was observed; where they say little its
      overall mean stands.
    * Only the form that predicts quality is there, which needs no fit for another price. The other one, in which
      neighbours vote for the member of best utility, is not.
    * Of more than 8,192 stored queries a query is compared with those in the nearest cells alone, unless ``search`` is
      ``exact``: most of the nearest are found, and the others are nearly as near.
    * Cost is predicted as for every router, not as the mean of the neighbours' costs.
    """

    Fit: ClassVar[type[FitOptions]] = KnnFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, KnnFit)
        table = training.table
        k = options.k or _chosen(training, options)
        kept = training.rows(np.arange(len(table))[-options.cap :]) if options.cap else training
        return Router(table.members, table.best, _head(kept, options, k), known(training))


def _head(training: Training, options: KnnFit, k: int) -> Neighbours:
    temperature = options.temperature if options.weighting == "softmax" else 0.0
    store = (training.x, training.table.quality)
    head = Neighbours.fit(*store, k, temperature, options.pseudo, options.search, options.compared)
    similar = options.weighting == "similarity"
    return replace(head, similar=similar, cap=options.cap, half_life=options.half_life)


def _chosen(training: Training, options: KnnFit) -> int:
    """The largest k whose choices, on queries that are left out one by one, are worse than the best by no more than one
    standard error: among equals, many neighbours err less.
    """
    order = np.random.default_rng([training.seed, 7]).permutation(len(training.x))
    held = np.sort(order[:_HELD])
    quality = np.nan_to_num(training.table.quality[held])
    grid = [k for k in _GRID if k < len(order)] or [1]
    head = _head(training, options.model_copy(update={"search": "exact"}), 1)
    picks = head.scores_at(training.x[held], grid, own=held).argmax(axis=2)
    reached = quality[np.arange(len(quality)), picks]
    lost = reached[reached.mean(axis=1).argmax()] - reached
    near = lost.mean(axis=1) <= lost.std(axis=1) / np.sqrt(len(held))
    best: int = max(k for k, good in zip(grid, near, strict=True) if good)
    return best
