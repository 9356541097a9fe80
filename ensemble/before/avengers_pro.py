"""Avengers-Pro: queries in clusters, every member scored in each, a new query read by its nearest clusters."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.costs.by_tags import tagged_or_known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.clusters import TagMeans, TagRanks, credited
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.tags import NearestTags, clustered
from ensemble.member import Capability
from ensemble.method import Stage, method

_GRID = (8, 16, 32, 64)


class AvengersFit(FitOptions):
    """Options of the fit of ``avengers_pro``."""

    clusters: int | None = Field(default=None, ge=1)
    """Of k-means. Omitted: of 8, 16, 32 and 64 the one that predicts best on a fifth of the queries, held out."""
    nearest: int = Field(default=3, ge=1)
    """Clusters that a query is read by. Omitted: 3."""
    sharpness: float = Field(default=9.0, ge=0, allow_inf_nan=False)
    """A cluster counts e^(−sharpness × (1 − cosine)). Omitted: 9."""
    pseudo: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Observations that a member's overall mean counts for in each cluster. Omitted: 5."""
    balance: float | None = Field(default=None, ge=0, le=1)
    """What quality counts against cheapness in the ranks. Omitted: 0.5 with ``fidelity: reference``; else there are no
    ranks, and the policy weighs cost."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference`` scores clusters by the members' ranks, as published. Omitted: fixed."""

    @model_validator(mode="after")
    def _ranked(self) -> AvengersFit:
        if self.balance is not None and self.fidelity == "fixed":
            raise ValueError("balance goes with fidelity: reference; else the policy weighs cost")
        return self


@method("avengers_pro", stage=Stage.BEFORE, paper="2508.12631", needs={Capability.GENERATE}, options=RoutingOptions)
class AvengersPro(Routing):
    """Means in clusters of queries (arXiv 2505.19797, 2508.12631): Σ over the nearest clusters of weight × mean
    quality, the weights a softmax of −sharpness × distance. UniRoute (arXiv 2502.08773) is the same.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Mean quality and mean cost are kept apart, so that one fit serves all prices. The code scores a cluster by
      1 ÷ (rank + 1) of balance × quality, made 0 to 1 in the cluster, + (1 − balance) × cheapness: that loses by how
      much a member is better, and depends on who else is there (``fidelity: reference``).
    * Means are drawn to a member's overall mean by ``pseudo`` observations.
    * Centres are of unit length, so that nearest by cosine and nearest to the centre are the same.
    * The chosen member answers once; the first Avengers let it vote over samples (here: an ensemble as a member).
    """

    Fit: ClassVar[type[FitOptions]] = AvengersFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, AvengersFit)
        table = training.table
        tagger = _tagger(training, options, options.clusters or _chosen(training, options))
        means = TagMeans.of(tagger, training.x, table.quality, options.pseudo)
        head = means if options.fidelity == "fixed" else _ranked(means, training, options)
        return Router(table.members, table.best, head, tagged_or_known(tagger, training, options.pseudo))


def _tagger(training: Training, options: AvengersFit, clusters: int, starts: int = 10) -> NearestTags:
    centres = clustered(training.x, clusters, training.seed, starts)
    return NearestTags(centres, min(options.nearest, len(centres)), options.sharpness)


def _ranked(means: TagMeans, training: Training, options: AvengersFit) -> TagRanks:
    balance = 0.5 if options.balance is None else options.balance
    money, paid = credited(means.tagger, training.x, training.table.cost)
    return TagRanks(means.tagger, means.sums, means.counts, 0.0, balance, money, paid)


def _chosen(training: Training, options: AvengersFit) -> int:
    """The number of clusters with the least squared error on held-out queries, the least of equals."""
    fitted, held = training.held_out()

    def wrong(clusters: int) -> float:
        tagger = _tagger(fitted, options, clusters, starts=3)
        head = TagMeans.of(tagger, fitted.x, fitted.table.quality, options.pseudo)
        return float(np.nansum((head.scores(held.x) - held.table.quality) ** 2))

    return min((count for count in _GRID if count <= len(fitted.x)), key=wrong, default=1)
