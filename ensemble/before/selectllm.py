"""SelectLLM: a few members, chosen for the query, answer and vote."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ensemble.before.calibrations.held import Kind, calibrated
from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.linear import RATE, Logistic
from ensemble.before.policies import Policy, Subset
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import right
from ensemble.member import Capability
from ensemble.method import Stage, method


class SelectFit(FitOptions):
    """Options of the fit of ``selectllm``."""

    threshold: float | None = Field(default=None, gt=0, le=1)
    """From which quality on an answer, or most samples of one, are right. Omitted: quality is what is foretold."""
    penalty: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Of the squared weights, on rows of unit length. Omitted: 10."""
    calibration: Kind = "platt"
    """Of each member's confidence, so that they are on one scale. Omitted: platt."""
    rate: float = Field(default=RATE, ge=0, le=1)
    """Of steps in service; 0: none. Omitted: 0.05."""


@method("selectllm", stage=Stage.BEFORE, paper="2408.08545", needs={Capability.GENERATE}, options=RoutingOptions)
class SelectLlm(Routing):
    """Confidence-weighted votes of a few (arXiv 2408.08545): a logistic head for each member says how likely it is
    right; the most confident answer, and vote(a) = Σ confidence × answers that say a.

    Asks of members: one answer of each that is chosen.

    Departures from the paper and its code:

    * Heads are linear in the embedding, where the paper tunes RoBERTa.
    * Confidences are calibrated, each member's on queries that its head has not seen: votes are weighed by them.
    * A label is the quality itself, unless a threshold is given; the paper's is 1 where most of ten samples are right.
    * Each chosen member votes once; with the paper's ten samples it would be an ensemble of its own.
    * The most of a vote are three members, as the policy ``subset`` has it.
    """

    Fit: ClassVar[type[FitOptions]] = SelectFit
    policy: ClassVar[Policy] = Subset()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, SelectFit)
        table = training.table

        def build(part: Training) -> Logistic:
            truth = right(part.table.quality, options.threshold)
            return Logistic.fit(part.x, truth, options.penalty, rate=options.rate)

        head, calibration = calibrated(options.calibration, build, training, right(table.quality, options.threshold))
        return Router(table.members, table.best, head, known(training), calibration)
