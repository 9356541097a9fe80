"""Blending: a member drawn at random for each turn; the reference of chance, and a source of unbiased outcomes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ensemble.before.costs.cost import MeanCosts
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.arms import Constant
from ensemble.before.policies import Policy, Sample
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.member import Capability, Card
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Floats
from ensemble.request import Request

_NEVER = 1e-300
"""Probability that a weight of 0 stands for in a logarithm."""


class BlendingFit(FitOptions):
    """Options of the fit of ``blending``."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of the draw by member. Omitted: 1 for each member that is not named."""


class BlendingOptions(RoutingOptions):
    """Options of ``blending``."""

    weights: tuple[float, ...] | None = Field(default=None)
    """Weight of the draw, one for each member in order. Omitted: all the same, or as the artifact says."""
    sticky: Literal["turn", "conversation"] = "turn"
    """How long a draw holds: for one answer, or for all answers of a conversation. Conversations are told apart by
    their first user message alone: those that begin with the same words have the same member. Omitted: turn."""

    @field_validator("weights")
    @classmethod
    def _drawable(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and not (all(0 <= w < float("inf") for w in weights) and any(weights)):
            raise ValueError("weights are at least 0, and one of them is above 0")
        return weights


@method("blending", stage=Stage.BEFORE, paper="2401.02994", needs={Capability.GENERATE}, options=BlendingOptions)
class Blending(Routing):
    """θ ~ Uniform{1 … M} for each turn, r ~ P(r | history; θ) (arXiv 2401.02994); with weights where they are given.

    Members see one another's answers in the conversation. The quality of a turn is the mean of the members', no more;
    what the draw writes down, with its propensity, is what other routers can learn from without bias. No feedback
    changes it.

    Asks of members: one answer of the drawn one.

    Departures from the paper and its code:

    * Weights, and a draw that holds for a conversation; the paper draws evenly for each turn.
    """

    options: BlendingOptions
    Fit: ClassVar[type[FitOptions]] = BlendingFit
    fitted = False
    takes_encoder = False
    policy: ClassVar[Policy] = Sample(by="softmax", temperature=1.0)

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, BlendingFit)
        table = training.table
        if strangers := sorted(options.weights.keys() - set(table.members)):
            allowed = ", ".join(table.members)
            raise BadRequest(f"weights name {', '.join(strangers)}, no members of the table; allowed: {allowed}")
        weights = [options.weights.get(name, 1.0) for name in table.members]
        if min(weights) < 0 or max(weights) == 0 or not np.isfinite(weights).all():
            raise BadRequest("weights are at least 0, and one of them is above 0")
        return Router(table.members, table.best, Constant(shares(weights)), MeanCosts.fit(training))

    def cold(self, members: Sequence[str]) -> Router:
        head = Constant(shares(self.options.weights or [1.0] * len(members)))
        return Router(tuple(members), 0, head, MeanCosts(np.zeros(len(members))))

    def check(self, members: Sequence[Card]) -> None:
        super().check(members)
        given = self.options.weights
        if given is not None and self.options.path is not None:
            raise ConfigurationError("weights are the artifact's where path is given; leave one out", param="weights")
        if given is not None and len(given) != len(members):
            rule = f"weights has {len(given)} numbers for {len(members)} members; allowed: one for each"
            raise ConfigurationError(rule, param="weights")

    def random(self, request: Request) -> np.random.Generator:
        if self.options.sticky == "turn":
            return super().random(request)
        begun = next((m.content for m in request.messages if m.role == "user"), request.question)
        # A request's seed is another one for each turn, where its sender gives none.
        return np.random.default_rng(zlib.crc32(begun.encode()))


def shares(weights: Sequence[float]) -> Floats:
    """[M], logarithms of the weights' shares: what a softmax at temperature 1 draws by."""
    each = np.asarray(weights, float)
    return np.asarray(np.log(np.maximum(each / each.sum(), _NEVER)))
