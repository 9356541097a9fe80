"""EmbedLLM: a compact vector for each member, which meets the query's in the odds of a right answer."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.latent import Latent
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.member import Capability
from ensemble.method import Stage, method


class EmbedllmFit(Descent):
    """Options of the fit of ``embedllm``."""

    size: int = Field(default=32, ge=1)
    """Numbers in a member's vector. Omitted: 32."""


@method("embedllm", stage=Stage.BEFORE, paper="2410.02223", needs={Capability.GENERATE}, options=RoutingOptions)
class Embedllm(Routing):
    """Matrix factorisation with text features (arXiv 2410.02223): P(right) = sigmoid(t(x) · p_m + b_m + g(x)), where t
    and g are linear in the embedding and p_m, b_m belong to the member.

    One outcome changes the vector of who answered, and a new member needs some 20 to 100 outcomes for a vector of its
    own; all else stays.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * The readout of two classes, V (p * t) + c, is folded into the vectors: only the difference of the two counts.
    * Members have a bias and queries an ease of their own, else the vectors are spent on overall means.
    * Vectors of 32 numbers, not 232, for pools of tens of members.
    * The number of passes is chosen on queries held out from the fit, not on the test set, and rows are shuffled.
    * Online steps are those of a Kalman filter on the member's vector, so that they grow smaller the more is known.
    """

    Fit: ClassVar[type[FitOptions]] = EmbedllmFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, EmbedllmFit)
        table = training.table
        head = Latent.fit(training.x, table.quality, options.size, options, training.seed)
        return Router(table.members, table.best, head, known(training))
