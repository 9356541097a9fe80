"""A draw among the members, so that a router goes on learning of all of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.policies.normal import probability_largest
from ensemble.before.policies.policy import Choice, Policy, Prediction, barred, best_of
from ensemble.errors import ConfigurationError
from ensemble.outcomes.dense import Bools, Floats

_OWN = {"softmax": "temperature", "epsilon": "epsilon", "thompson": "spread", "ucb": "spread"}
"""The option of each way of drawing."""


class Sample(Policy):
    """Draws by quality - price × cost, and tells with which probability the chosen one was drawn.

    ``softmax`` draws in proportion to e^(score ÷ temperature); ``epsilon`` takes the best, and with probability
    epsilon any; ``thompson`` takes the largest of values drawn around the scores; ``ucb`` takes the largest upper bound
    and draws nothing. The last two need a router that knows the spread of its scores.
    """

    kind: Literal["sample"] = "sample"
    by: Literal["softmax", "epsilon", "thompson", "ucb"] = "softmax"
    """How. Omitted: softmax."""
    temperature: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Of softmax, in units of the scores. Omitted: 0.1."""
    epsilon: float = Field(default=0.05, ge=0, le=1)
    """Of epsilon: share of the queries that anyone may answer. Omitted: 0.05."""
    spread: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of thompson and ucb: standard deviations that count. Omitted: 1."""
    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Quality that a unit of money is worth. Omitted: 0."""

    @model_validator(mode="after")
    def _own(self) -> Sample:
        mine = _OWN[self.by]
        if others := sorted((set(_OWN.values()) - {mine}) & self.model_fields_set):
            raise ValueError(f"{self.by} has no option {', '.join(others)}; it has: {mine}, price")
        return self

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        scores = barred(prediction.quality - self.price * prediction.cost, allowed)
        if self.by in ("thompson", "ucb"):
            return self._by_spread(scores, self._std(prediction), prediction, allowed, random)
        odds = self._odds(scores, prediction, allowed)
        # The largest of the logarithms with Gumbel noise is a draw in these proportions; nobody barred can win it.
        logs = np.where(odds > 0, np.log(np.maximum(odds, np.finfo(float).tiny)), -np.inf)
        drawn = (logs + random.gumbel(size=odds.shape)).argmax(axis=1)
        return Choice(scores, drawn, odds[np.arange(len(odds)), drawn])

    def _odds(self, scores: Floats, prediction: Prediction, allowed: Bools) -> Floats:
        """[n, M], probabilities."""
        if self.by == "softmax":
            weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / self.temperature)
            return np.asarray(weights / weights.sum(axis=1, keepdims=True))
        odds: Floats = self.epsilon * allowed / allowed.sum(axis=1, keepdims=True)
        odds[np.arange(len(odds)), best_of(scores, allowed, prediction.cost).chosen] += 1 - self.epsilon
        return odds

    def _std(self, prediction: Prediction) -> Floats:
        if prediction.std is None:
            rule = f"{self.by} needs the spread of the scores, which this router does not know"
            raise ConfigurationError(f"{rule}; allowed: softmax, epsilon", param="policy")
        return np.asarray(self.spread * prediction.std)

    def _by_spread(
        self, scores: Floats, std: Floats, prediction: Prediction, allowed: Bools, random: np.random.Generator
    ) -> Choice:
        if self.by == "ucb":
            return best_of(scores + std, allowed, prediction.cost)
        drawn = best_of(scores + std * random.standard_normal(scores.shape), allowed, prediction.cost)
        propensity = probability_largest(scores, std, allowed, drawn.chosen)
        return Choice(scores, drawn.chosen, propensity)
