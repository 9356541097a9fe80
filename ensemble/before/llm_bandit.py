"""LLM Bandit: one policy for every set of members and every preference between quality and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.set_policy import SetPolicy
from ensemble.before.policies import Prediction
from ensemble.before.routing.decision import Reading
from ensemble.before.routing.desk import Desk, Loaded
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.before.solvers.set_policy import Aim, trained, variational
from ensemble.errors import ConfigurationError
from ensemble.member import Capability, Card
from ensemble.method import Members, Stage, method
from ensemble.request import Request


class LlmBanditFit(Descent):
    """Options of the fit of ``llm_bandit``."""

    size: int = Field(default=32, ge=1)
    """Numbers in a member's vector. Omitted: 32."""
    width: int = Field(default=32, ge=1)
    """Hidden units of the policy. Omitted: 32."""
    objective: Literal["exact", "ppo", "none"] = "exact"
    """``exact``: the gradient of the expected reward over all observed members; ``ppo``: proximal policy optimisation
    on drawn ones; ``none``: no policy, scores are expected quality and costs count by a policy such as ``mix``.
    Omitted: exact."""
    entropy: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """Reward that a nat of the policy's entropy is worth while it is fitted. Omitted: 0.01."""
    preference: float = Field(default=0.0, ge=0, le=1)
    """For cheapness, where the configuration says none: 0 quality alone, 1 cost alone. Omitted: 0."""


class LlmBanditOptions(RoutingOptions):
    """Options of ``llm_bandit``."""

    preference: float | None = Field(default=None, ge=0, le=1)
    """For cheapness: 0 quality alone, 1 cost alone. Not of routers that were fitted with objective none. Omitted: that
    of the fit."""


@method("llm_bandit", stage=Stage.BEFORE, paper="2502.02743", needs={Capability.GENERATE}, options=LlmBanditOptions)
class LlmBandit(Routing):
    """LLM Bandit (arXiv 2502.02743): members are Gaussian vectors of a variational item response model, P(right) =
    sigmoid(a(x) · I_m + b(x)), and a policy that is told of every available member its vector, P and cost, and the
    preference w, gives probabilities over the set; reward (1 - w) quality - w cost, where a cost of 1 is the dearest
    member's mean.

    Scores are those probabilities: they are weighed by cost already, so the method's own policy takes the highest, and
    ``sample`` draws. One outcome changes the vector of who answered; a new member needs the outcomes of 20 to 50
    queries, best of those on which the others differ.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Outcomes of all members are known when it is fitted, so the expected reward is followed exactly; ``objective:
      ppo`` has the paper's draws.
    * Of the set the policy is told the mean over its members, not what a set transformer makes of it.
    * The network corrects the greedy choice by (1 - w) P - w cost, which it starts from.
    * In service the vectors learn from outcomes; the policy's weights do not.
    """

    options: LlmBanditOptions
    Fit: ClassVar[type[FitOptions]] = LlmBanditFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, LlmBanditFit)
        table, x = training.table, training.x
        cost = table.cost.astype(np.float64)
        abilities = variational(x, table.quality, options.size, options, training.seed)
        if options.objective == "none":
            return Router(table.members, table.best, abilities, known(training))
        aim = Aim(
            width=options.width,
            entropy=options.entropy,
            exact=options.objective == "exact",
            preference=options.preference,
        )
        head = trained(abilities, x, table.quality, cost, aim, options, training.seed)
        return Router(table.members, table.best, head, known(training))

    async def read(self, request: Request, members: Members, desk: Desk, loaded: Loaded) -> Reading:
        reading = await super().read(request, members, desk, loaded)
        head = loaded.router.head
        if self.options.preference is None or not isinstance(head, SetPolicy):
            return reading
        x = await loaded.embed([request.question])
        there = np.zeros(len(loaded.router.members), bool)
        there[[arm.column for arm in self._arms(loaded.router.members, list(members.names))]] = True
        chances = head.chances(x, self.options.preference, there)
        return replace(reading, prediction=replace(reading.prediction, quality=chances))

    def _fits(self, members: Sequence[Card], router: Router, prediction: Prediction) -> None:
        if self.options.preference is not None and not isinstance(router.head, SetPolicy):
            rule = "the router was fitted with objective none, which knows no preference; use a policy such as mix"
            raise ConfigurationError(rule, param="preference")
        super()._fits(members, router, prediction)
