"""FORC: how likely each member is to be right and what it costs; the cheapest that will do, or the best in a budget."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ensemble.before.calibrations.held import Kind, calibrated
from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.linear import RATE, Logistic
from ensemble.before.policies import Enough, Policy
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.member import Capability
from ensemble.method import Stage, method


class ForcFit(FitOptions):
    """Options of the fit of ``forc``."""

    penalty: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Of the squared weights, on rows of unit length. Omitted: 10."""
    calibration: Kind = "platt"
    """Of each member's probability: a batch is given to members whose chances are overestimated. Omitted: platt."""
    rate: float = Field(default=RATE, ge=0, le=1)
    """Of steps in service; 0: none. Omitted: 0.05."""


@method("forc", stage=Stage.BEFORE, paper="2308.06077", needs={Capability.GENERATE}, options=RoutingOptions)
class Forc(Routing):
    """Fly-swat or cannon (arXiv 2308.06077): a logistic head for each member; the cheapest whose probability of being
    right is at least ½ answers. Whole batches are divided under a budget by the policy ``assign``.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * One head for each member on the embedding, where the paper reads "name of the member + query" with DistilBERT.
    * Where nobody is likely to be right the most likely one answers, not the dearest (policy ``enough`` with
      ``fallback: dearest``).
    * Probabilities are calibrated on queries that the head has not seen.
    * Cost is predicted for each query where the table tells lengths and prices.
    """

    Fit: ClassVar[type[FitOptions]] = ForcFit
    policy: ClassVar[Policy] = Enough()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, ForcFit)
        table = training.table

        def build(part: Training) -> Logistic:
            return Logistic.fit(part.x, part.table.quality, options.penalty, rate=options.rate)

        head, calibration = calibrated(options.calibration, build, training)
        return Router(table.members, table.best, head, known(training), calibration)
