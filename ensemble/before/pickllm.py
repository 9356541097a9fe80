"""PickLLM: who has earned the most so far answers, whatever the question; it starts from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import MeanCosts
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.arms import Automaton, Values
from ensemble.before.heads.head import Head, Outcome
from ensemble.before.policies import Policy, Prediction, Sample
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.rewards import Reward, RewardOptions, made
from ensemble.errors import ConfigurationError
from ensemble.member import Capability, Card
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Dense

Algorithm = Literal["automaton", "q", "ucb1", "thompson"]

_POLICIES: dict[str, Policy] = {
    "automaton": Sample(by="softmax", temperature=1.0),
    "q": Sample(by="epsilon", epsilon=0.1),
    "ucb1": Sample(by="ucb"),
    "thompson": Sample(by="thompson"),
}


class PickLlmFit(RewardOptions):
    """Options of the fit of ``pickllm``."""

    algorithm: Algorithm = "ucb1"
    """automaton: linear reward-inaction; q: Q-learning without states; ucb1 and thompson: the mean reward, and how sure
    it is. Omitted: ucb1."""
    step: float = Field(default=0.1, gt=0, le=1)
    """Of automaton and q: part of a reward that is taken over at once. Omitted: 0.1."""


class PickLlmOptions(RoutingOptions):
    """Options of ``pickllm``; with ``path``, a warm start, rewards are made as the artifact says."""

    algorithm: Algorithm = "ucb1"
    """automaton: linear reward-inaction; q: Q-learning without states; ucb1 and thompson: the mean reward, and how sure
    it is. With ``path`` the one that was fitted. Omitted: ucb1."""


@method("pickllm", stage=Stage.BEFORE, paper="2412.12170", needs={Capability.GENERATE}, options=PickLlmOptions)
class PickLlm(Routing):
    """A bandit without context: try members, settle on the one with the best reward (arXiv 2412.12170).

    Reward-inaction p_m += b R (1 - p_m) with a draw by p; Q_m += a (R - Q_m) with an epsilon-greedy choice; or the mean
    reward with UCB1's or Thompson's exploring. It needs no artifact: it starts from nothing and learns from each
    outcome of ``/v1/feedback``. A fit replays a table once, as a warm start, and sets the weights of the reward;
    without one the reward is the quality. An outcome changes its member alone (of the automaton all shares, which sum
    to 1).

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * The reward is w_a · quality - w_c · cost - w_l · latency; ``reward: printed`` multiplies cost and latency as
      printed.
    * Rewards of the automaton are cut to [0, 1], and it stays as it is once a member has a probability of 0.99.
    * Epsilon stays 0.1, as a policy knows no time; UCB1 and Thompson are ours, and explore less the more they know.
    * Thompson draws from a normal distribution.
    """

    options: PickLlmOptions
    Fit: ClassVar[type[FitOptions]] = PickLlmFit
    fitted = False
    takes_encoder = False
    policy: ClassVar[Policy] = _POLICIES["ucb1"]

    def __init__(self, options: PickLlmOptions) -> None:
        super().__init__(options.model_copy(update={"policy": options.policy or _POLICIES[options.algorithm]}))

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, PickLlmFit)
        table = training.table
        head = started(options.algorithm, len(table.members), options.made(table), options.step)
        order = np.random.default_rng([training.seed, 17]).permutation(len(table))
        for row in order:
            _replay(head, table, int(row), training.x[row])
        return Router(table.members, table.best, head, MeanCosts.fit(training))

    def _fits(self, members: Sequence[Card], router: Router, prediction: Prediction) -> None:
        fitted = algorithm_of(router.head)
        if fitted != self.options.algorithm:
            rule = f"the router was fitted with the algorithm {fitted}; set algorithm: {fitted}"
            raise ConfigurationError(rule, param="algorithm")
        super()._fits(members, router, prediction)

    def cold(self, members: Sequence[str]) -> Router:
        nothing = Dense(queries=(), texts=(), members=tuple(members), quality=np.zeros((0, len(members))))
        head = started(self.options.algorithm, len(members), made("sum", None, None, nothing))
        return Router(tuple(members), 0, head, MeanCosts(np.zeros(len(members))))


def started(algorithm: str, members: int, reward: Reward, step: float = 0.1) -> Head:
    """The head of an algorithm before any outcome."""
    if algorithm == "automaton":
        return Automaton.cold(members, reward, step)
    return Values.cold(members, reward, step=step if algorithm == "q" else 0.0, by=algorithm)


def algorithm_of(head: Head) -> str:
    """Of a head that ``started`` has made."""
    if isinstance(head, Values):
        return "q" if head.step else head.by
    return "automaton"


def _replay(head: Head, table: Dense, row: int, x: np.ndarray) -> None:
    """Take in all outcomes of one query, in the order of the members."""
    for member in np.flatnonzero(table.observed[row]):
        cell = (row, member)
        quality, cost, latency = table.quality[cell], table.cost[cell], table.latency[cell]
        head.learn(Outcome(x=x, member=int(member), quality=float(quality), cost=float(cost), latency=float(latency)))
