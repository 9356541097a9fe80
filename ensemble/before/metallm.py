"""MetaLLM: a linear bandit for each member; its reward is quality less what the answer cost."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.bandits import LinearBandit, rewarded
from ensemble.before.policies import Policy, Utility
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.regression import chosen
from ensemble.before.targets.rewards import RewardOptions
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import mean_observed

CONSTANT = 10.0
"""Appended to embeddings: so large that the penalty hardly holds a member's mean to 0."""


class MetaLlmFit(RewardOptions):
    """Options of the fit of ``metallm``."""

    penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """lambda of the ridge. Omitted: the best of 1 to 1000 on queries held out, each once."""
    forget: float = Field(default=1.0, gt=0, le=1)
    """gamma: what the past counts after each outcome in service. Omitted: 1, everything counts the same."""


@method("metallm", stage=Stage.BEFORE, paper="2407.10834", needs={Capability.GENERATE}, options=RoutingOptions)
class MetaLlm(Routing):
    """Ridge regression of each member's reward, one outcome at a time: θ_m · x, θ_m = A_m⁻¹ b_m (arXiv 2407.10834).

    Scores are expected rewards and their spread is √(xᵀ A_m⁻¹ x), so that the policy ``{kind: sample, by: ucb, spread:
    alpha}`` is LinUCB, and ``by: thompson`` draws as Thompson sampling does. An outcome in service is one step for
    that member; preferences change nothing.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Without exploring (the published default, and ours) it learns only of whom it already prefers: name a policy that
      explores where it is to learn in service.
    * The cost of the answer itself is in the reward where it is known, not a list price; cost counts nothing unless
      ``cost_weight`` says so, as in the code.
    * Inverses are kept by Sherman-Morrison; where the past is forgotten the ridge's penalty is put back.
    * A constant of 10 is appended to the embedding, and λ is chosen on held-out queries.
    """

    Fit: ClassVar[type[FitOptions]] = MetaLlmFit
    policy: ClassVar[Policy] = Utility()

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, MetaLlmFit)
        table, costs = training.table, mean_observed(training.table.cost)
        reward = options.made(table)
        penalty = options.penalty
        if penalty is None:
            penalty = chosen(training.x, rewarded(table, costs, reward), seed=training.seed)
        head = LinearBandit.fit(training.x, table, costs, reward, penalty, forget=options.forget, constant=CONSTANT)
        return Router(table.members, table.best, head, known(training))
