"""Routing with benchmark data sets: who will be right, as neighbours in the benchmarks say, and how far to trust it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.searching import SearchOptions
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.guards.rightness import Trust
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.heads.trusted import Trusted
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import has_tasks, right
from ensemble.before.targets.tags import clustered
from ensemble.member import Capability
from ensemble.method import Stage, method

_CLUSTERS = 8


class ShnitzerFit(SearchOptions):
    """Options of the fit of ``shnitzer_benchmark_routing``."""

    k: int = Field(default=64, ge=1)
    """Neighbours that predict who is right. Omitted: 64."""
    nearest: int = Field(default=19, ge=1)
    """Neighbours that the distance of a query is a mean over. Omitted: 19."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """From which quality and which prediction on an answer is right, where it is asked whether the predictor is.
    Omitted: 0.5."""
    sure: float = Field(default=0.6, ge=0, lt=1)
    """Least probability of being better than the member that is best on average, at which somebody else may answer;
    0: the highest score always does. Omitted: 0.6."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference`` makes qualities and predictions 1 or 0 before they are weighed by trust, takes each for one draw,
    and knows its trust from whole tasks alone. Omitted: fixed."""


@method(
    "shnitzer_benchmark_routing",
    stage=Stage.BEFORE,
    paper="2309.15789",
    needs={Capability.GENERATE},
    options=RoutingOptions,
)
class ShnitzerBenchmarkRouting(Routing):
    """Neighbours' share of right answers g, weighed by the predictor's own rightness p (arXiv 2309.15789): score
    g·p + (1 − g)·(1 − p). p comes, without labels of new queries, from tasks that were left out in turn: a kernel
    smoother of how often the predictor was right there over how far the task was from the others.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * It chooses for each query. The paper's choice for a task as a whole is ``Trusted.of_task`` of the head.
    * g is not made 1 or 0 first: for a single query that leaves two values, and nothing between members that share one
      (``fidelity: reference``). For the fallback g counts as the mean of k draws.
    * p is also measured on a fifth of the queries of every task, left out: from whole tasks alone it is the same for a
      query that is like those of the fit as for one that is not.
    * p is at least ½: a predictor that is mostly wrong is not turned around.
    * Of more than 8,192 stored queries the nearest are sought in the nearest cells, unless ``search`` is ``exact``.
    * k is 64 rather than 5, which is too few for 0/1 outcomes. Clusters are the tasks where the table tells none.
    """

    Fit: ClassVar[type[FitOptions]] = ShnitzerFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, ShnitzerFit)
        table = training.table
        asked = replace(training, table=replace(table, tasks=_tasks(training)))
        binary = options.fidelity == "reference"
        trust = Trust.fit(asked, lambda part: _base(part, options), options.threshold, options.nearest, near=not binary)
        base = _base(training, options)
        head = Trusted(base, trust, options.nearest, table.best, options.sure, options.threshold, binary)
        return Router(table.members, table.best, head, known(training))


def _base(training: Training, options: ShnitzerFit) -> Neighbours:
    quality = training.table.quality
    if options.fidelity == "reference":
        quality = right(quality, options.threshold)
    return Neighbours.fit(training.x, quality, options.k, 0.0, 1.0, options.search, options.compared)


def _tasks(training: Training) -> tuple[str, ...]:
    if has_tasks(training.table):
        return training.table.tasks
    centres = clustered(training.x, _CLUSTERS, training.seed)
    return tuple(str(place) for place in (training.x @ centres.T).argmax(axis=1))
