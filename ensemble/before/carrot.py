"""CARROT: quality and cost are predicted apart, and any trade between them is made afterwards."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.costs.cost import known
from ensemble.before.fitting.searching import SearchOptions
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.head import Head
from ensemble.before.heads.linear import RATE, Logistic, Ridge
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.policies import Mix, Policy
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.member import Capability
from ensemble.method import Stage, method

_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
_KS = tuple(2**power for power in range(1, 10))
_HELD = 2048
"""Queries that a choice of k is made on at most."""


class CarrotFit(SearchOptions):
    """Options of the fit of ``carrot``."""

    estimator: Literal["ridge", "logistic", "neighbours"] = "ridge"
    """What predicts quality. Omitted: ridge."""
    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the squared weights of ``ridge`` and ``logistic``, on rows of unit length. Omitted: for ridge, of 1, 3, 10,
    30 and 100 the largest that chooses about as well as any on a fifth of the queries, held out; for logistic, 10."""
    k: int | None = Field(default=None, ge=1)
    """Of ``neighbours``. Omitted: of 2, 4, … 512 the one that predicts best on a fifth of the queries, held out."""
    rate: float = Field(default=RATE, ge=0, le=1)
    """Of steps in service of ``ridge`` and ``logistic``; 0: none. Omitted: 0.05."""

    @model_validator(mode="after")
    def _read(self) -> CarrotFit:
        unread = {"k", "search", "compared"} if self.estimator != "neighbours" else {"penalty", "rate"}
        if given := sorted(unread & self.model_fields_set):
            raise ValueError(f"the estimator {self.estimator} does not read {', '.join(given)}")
        return self


@method("carrot", stage=Stage.BEFORE, paper="2502.03261", needs={Capability.GENERATE}, options=RoutingOptions)
class Carrot(Routing):
    """Plug-in routing (arXiv 2502.03261): the highest (1 − mu) × predicted quality − mu × scale × predicted cost.
    Minimax rate-optimal for every mu at once, so one fit serves all trades.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Estimators are neighbours and linear models of the embedding; the paper's second one is RoBERTa.
    * Of more than 8,192 stored queries ``neighbours`` are sought in the nearest cells, unless ``search`` is ``exact``.
    * Costs are in the table's money, by tokens read and written where these are known (lengths by a regression of their
      logarithm). The code multiplies dollars by 100: give the policy ``scale: 100`` for the same.
    """

    Fit: ClassVar[type[FitOptions]] = CarrotFit
    policy: ClassVar[Policy] = Mix()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, CarrotFit)
        table = training.table
        return Router(table.members, table.best, _head(training, options), known(training))


def _head(training: Training, options: CarrotFit) -> Head:
    x, quality = training.x, training.table.quality
    if options.estimator == "neighbours":
        where = (options.search, options.compared)
        return Neighbours.fit(x, quality, options.k or _chosen(training), 0.0, 1.0, *where)
    if options.estimator == "logistic":
        return Logistic.fit(x, quality, options.penalty or 10.0, rate=options.rate)
    penalty = options.penalty or Ridge.tuned(x, quality, _PENALTIES, training.seed)
    return Ridge.fit(x, quality, penalty, rate=options.rate, spread=True)


def _chosen(training: Training) -> int:
    """The k with the least squared error on held-out queries, the largest of equals."""
    fitted, held = training.held_out()
    held = held.rows(np.arange(min(len(held.x), _HELD)))
    head = Neighbours.fit(fitted.x, fitted.table.quality, 1, pseudo=1.0, search="exact")
    grid = [k for k in _KS if k <= len(fitted.x)] or [1]
    wrong = np.nansum((head.scores_at(held.x, grid) - held.table.quality) ** 2, axis=(1, 2))
    best: int = min(zip(wrong.tolist(), grid, strict=True), key=lambda pair: (pair[0], -pair[1]))[1]
    return best
