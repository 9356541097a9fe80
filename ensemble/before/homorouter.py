"""HomoRouter: what each of several members that do the same job will score, and the cheapest that is about as good."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.linear import RATE, Ridge
from ensemble.before.policies import Policy, Within
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.ranking import ranked
from ensemble.member import Capability
from ensemble.method import Stage, method

_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)


class HomoRouterFit(FitOptions):
    """Options of the fit of ``homorouter``."""

    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of the squared weights, on rows of unit length. Omitted: of 1, 3, 10, 30 and 100 the largest that chooses about
    as well as any on a fifth of the queries, held out."""
    ranking: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """What a pair of members in the wrong order counts beside the squared error; 0: nothing. Omitted: 0.1."""
    margin: float = Field(default=0.2, gt=0, le=1)
    """By how much the best member of a query is to score above those that did worse. Omitted: 0.2."""
    rate: float = Field(default=RATE, ge=0, le=1)
    """Of steps in service; 0: none. Omitted: 0.05."""


@method("homorouter", stage=Stage.BEFORE, paper="2406.12429", needs={Capability.GENERATE}, options=RoutingOptions)
class HomoRouter(Routing):
    """Score prediction by regression and ranking (arXiv 2406.12429): least Σ (quality − score)² + ranking × Σ max(0,
    margin − (score of the best − score of a worse one))²; the cheapest within delta of the best answers.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Scores are linear in the embedding, with weights of its own for each member, where the paper's encoder reads the
      query beside an embedding of the tool. Its mix of the two losses is not known.
    * The hinge is squared, so that the sum has one least point that is found exactly.
    * delta is 0 unless the policy says otherwise: the best answers. Set it by what is paid on held-out queries.
    """

    Fit: ClassVar[type[FitOptions]] = HomoRouterFit
    policy: ClassVar[Policy] = Within()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, HomoRouterFit)
        x, table = training.x, training.table
        penalty = options.penalty or Ridge.tuned(x, table.quality, _PENALTIES, training.seed)
        head = Ridge.fit(x, table.quality, penalty, rate=options.rate)
        if options.ranking > 0:
            head = ranked(x, table.quality, head, penalty, options.ranking, options.margin)
        return Router(table.members, table.best, head, known(training))
