"""RTR: routes over pairs of a model and a way to reason, by how right and how long their answers will be."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.by_length import LengthCosts, longest
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.network import Network, regression
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method


class RtrFit(Descent):
    """Options of the fit of ``rtr``."""

    width: int = Field(default=64, ge=1)
    """Hidden units of each of the two networks. Omitted: 64."""
    cost: Literal["tokens", "money"] | None = None
    """What an answer costs: money, or its tokens ÷ the largest mean length of a member. Omitted: money where the table
    has prices of tokens, else tokens."""


@method("rtr", stage=Stage.BEFORE, paper="2505.19435", needs={Capability.GENERATE}, options=RoutingOptions)
class Rtr(Routing):
    """Route-To-Reason (arXiv 2505.19435): members are pairs ``"model|strategy"``; one network says how likely each is
    right, another how many tokens it will write, from the query and a learned vector of the model and of the strategy.

    The paper's score, lambda × P - (1 - lambda) × length, is the policy ``mix`` with mu = 1 - lambda, where costs are
    tokens: lengths in units of the longest member's mean. The option ``strategies`` says what is put before a question
    for each strategy. One outcome changes what is said of the pair that answered.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Models and strategies have learned vectors alone: a text that describes each is one vector more that never varies.
    * Lengths are learned as logarithms; squared errors of tokens are those of the longest answers.
    * Each pair's log-odds have a constant: that of its model and that of its strategy.
    * Lengths are set against one unit for all queries, not each query's longest: one scale for ``mix``.
    * Passes are chosen on queries held out from the fit, not on the test file.
    """

    Fit: ClassVar[type[FitOptions]] = RtrFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, RtrFit)
        table = training.table
        head = Network.fit(training.x, table.quality, table.members, options.width, options, training.seed)
        return Router(table.members, table.best, head, _costs(training, options))


def _costs(training: Training, options: RtrFit) -> LengthCosts:
    table = training.table
    lengths, priced = table.output_tokens, not np.isnan(table.prices).any()
    if without := [name for m, name in enumerate(table.members) if np.isnan(lengths[:, m]).all()]:
        rule = "rtr learns from lengths of answers, and the table has no output_tokens of"
        raise BadRequest(f"{rule} {', '.join(without)}")
    if options.cost == "money" and not priced:
        raise BadRequest("cost: money needs the price of every member's tokens; allowed without: tokens", param="cost")
    prices = table.prices
    money = priced if options.cost is None else options.cost == "money"
    if not money:
        unit = max(float(np.nanmax(np.nanmean(lengths, axis=0))), 1.0)
        prices = np.tile([0.0, 1 / unit], (len(table.members), 1))
    layers = regression(training.x, np.log1p(lengths), table.members, options.width, options, training.seed)
    return LengthCosts.of_layers(layers, prices, longest(lengths), money)
