"""Multi-factor: quality, latency, cost and load of each member, weighted; limits come first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.costs.cost import MeanCosts, known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.arms import Constant
from ensemble.before.heads.factors import Factors, PlainFactors
from ensemble.before.heads.head import Head
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.regression import ridge
from ensemble.member import Capability
from ensemble.method import Members, Stage, method
from ensemble.outcomes.dense import mean_observed
from ensemble.request import Event, Request, Trace


class MultiFactorFit(FitOptions):
    """Options of the fit of ``multi_factor``; weights are divided by their sum."""

    quality: Literal["ridge", "mean"] = "ridge"
    """What is expected of a member: by a ridge regression on the question, or its mean. Omitted: ridge."""
    quality_weight: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    """Omitted: 0.4."""
    latency_weight: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """Omitted: 0.2."""
    cost_weight: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """Omitted: 0.2."""
    load_weight: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """Omitted: 0.2."""
    least_quality: float = Field(default=0.0, ge=0, le=1)
    """Members of whom less is expected are not eligible. Omitted: 0, all are."""
    most_cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Money; members whose answers cost more on average are not eligible. Omitted: no limit."""
    most_latency: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds; members that take longer on average are not eligible. Omitted: no limit."""
    most_load: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Answers under way; members with more are not eligible. Omitted: no limit."""

    @model_validator(mode="after")
    def _weighing(self) -> MultiFactorFit:
        if not any(self.weights):
            raise ValueError("all weights are 0; one of them must be above 0")
        return self

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """Of quality, latency, cost and load."""
        return (self.quality_weight, self.latency_weight, self.cost_weight, self.load_weight)


@method("multi_factor", stage=Stage.BEFORE, paper="2510.08731", needs={Capability.GENERATE}, options=RoutingOptions)
class MultiFactor(Routing):
    """Σ weight · score over quality, latency, cost and load, among the members within all limits.

    As the selector of that name in vLLM's semantic router (arXiv 2510.08731): weights 0.4, 0.2, 0.2, 0.2; where the
    limits leave nobody the cheapest answers. Costs and latencies are means of the table that follow the outcomes of
    ``/v1/feedback``; the load is the answers that this process has under way.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Latency and cost are scored linearly between the least and the most of the members, and by their means, not by
      percentiles of the time to the first token.
    * The quality is predicted from the question, unless ``quality`` is ``mean``.
    """

    Fit: ClassVar[type[FitOptions]] = MultiFactorFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, MultiFactorFit)
        table = training.table
        kind = PlainFactors if options.quality == "mean" else Factors
        head = kind(
            _quality(training, options),
            mean_observed(table.cost),
            mean_observed(table.latency),
            np.zeros(len(table.members)),
            options.weights,
            options.least_quality,
            options.most_cost,
            options.most_latency,
            options.most_load,
        )
        costs = known(training) if head.reads else MeanCosts.fit(training)
        return Router(table.members, table.best, head, costs)

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        loads = _Loads(None if members.prepared is None else members.prepared.loaded.router)
        try:
            async with aclosing(super().run(request, members)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Trace) and event.kind == "route":
                        loads.begin(event.data["answers"])
                    yield event
        finally:
            loads.end()


class _Loads:
    """Counts the answers of one request among those under way."""

    def __init__(self, router: Router | None) -> None:
        self._router = router
        self._columns: list[int] = []

    def begin(self, names: list[str]) -> None:
        if self._router is not None:
            self._columns = [self._router.members.index(name) for name in names]
            self._add(1)

    def end(self) -> None:
        self._add(-1)
        self._columns = []

    def _add(self, by: int) -> None:
        if self._router is not None and isinstance(self._router.head, Factors):
            self._router.head.load[self._columns] += by


def _quality(training: Training, options: MultiFactorFit) -> Head:
    if options.quality == "mean":
        return Constant(np.nan_to_num(training.table.means))
    return ridge(training)
