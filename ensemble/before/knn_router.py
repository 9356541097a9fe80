"""kNN router: a member answers a query as well as it answered the most similar queries of the past."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.costs import known
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.training import FitOptions, Training
from ensemble.member import Capability
from ensemble.method import Stage, method

_GRID = tuple(2**power for power in range(10))


class KnnFit(FitOptions):
    """Options of the fit of ``knn_router``."""

    k: int | None = Field(None, ge=1)
    """Neighbours. Omitted: the best of 1, 2, 4, … 512 on a fifth of the queries, held out."""
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """A neighbour counts e^(similarity ÷ temperature); 0: all count the same. Omitted: 0."""
    pseudo: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Observations that a member's overall mean counts for. Omitted: 1."""


@method("knn_router", stage=Stage.BEFORE, paper="2505.12601", needs={Capability.GENERATE}, options=RoutingOptions)
class KnnRouter(Routing):
    """Mean quality over the k most similar queries (arXiv 2505.12601); the reference that every router has to beat.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * k is chosen on held-out queries where it is not given: small ones do worse than the best single member.
    * Where neighbours say nothing of a member its overall mean stands.
    """

    Fit: ClassVar[type[FitOptions]] = KnnFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, KnnFit)
        table = training.table
        k = options.k or _chosen(training, options)
        head = Neighbours.fit(training.x, table.quality, k, options.temperature, options.pseudo)
        return Router(table.members, table.best, head, known(training))


def _chosen(training: Training, options: KnnFit) -> int:
    """The k whose choices are best on held-out queries, the largest of equals."""
    fitted, held = training.held_out()
    head = Neighbours.fit(fitted.x, fitted.table.quality, 1, options.temperature, options.pseudo)
    quality = np.nan_to_num(held.table.quality)

    def reached(k: int) -> float:
        head.k = k
        return float(quality[np.arange(len(quality)), head.scores(held.x).argmax(axis=1)].mean())

    best: int = max((k for k in _GRID if k <= len(fitted.table)), key=lambda k: (reached(k), k))
    return best
