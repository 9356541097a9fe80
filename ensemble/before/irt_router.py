"""IRT-Router: item response theory with text features, in the two forms of the paper."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.abilities import Abilities
from ensemble.before.heads.head import Head
from ensemble.before.heads.latent import Latent
from ensemble.before.heads.response import Response
from ensemble.before.heads.warm import Warm
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.member import Capability
from ensemble.method import Stage, method

_STORE = 4096
"""Queries kept to warm up by: more would take longer to compare than a decision may."""


class IrtFit(Descent):
    """Options of the fit of ``irt_router``."""

    form: Literal["mirt", "nirt"] = "mirt"
    """``mirt``: abilities count by how much the query asks of each; ``nirt``: a small monotone network of how far they
    exceed it. Omitted: mirt."""
    size: int = Field(default=20, ge=1)
    """Abilities. Omitted: 20."""
    width: int = Field(default=16, ge=1)
    """Hidden units of ``nirt``. Omitted: 16."""
    warm: float = Field(default=1.0, ge=0, le=1)
    """Share of the query itself in what is read of it; the rest is the mean of its nearest queries of the past. 1: no
    warm-up. Omitted: 1."""
    nearest: int = Field(default=5, ge=1)
    """Queries of the past that count for the warm-up. Omitted: 5."""


@method("irt_router", stage=Stage.BEFORE, paper="2506.01048", needs={Capability.GENERATE}, options=RoutingOptions)
class IrtRouter(Routing):
    """MIRT and NIRT (arXiv 2506.01048): P(right) = sigmoid(a(x) · theta_m - b(x)), where a = softplus(linear) says how
    much of each ability a query asks for, b how hard it is, and theta_m what a member is able to.

    With a ≥ 0 a member that has more of every ability is never ranked lower. The paper's score, alpha × P - (1 - alpha)
    × cost, is the policy ``mix`` with mu = 1 - alpha and scale = 1 ÷ the largest cost. One outcome changes theta of who
    answered by a step of the extended Kalman filter, whose variance is the ``spread`` that policies can draw by.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Abilities are free numbers, not made from a text that describes the member: a new member needs outcomes.
    * Relevance of abilities in ``nirt`` is linear in the embedding, not labelled by a language model.
    * No warm-up where it is not asked for: on one's own queries it moves a query away from what it asks.
    """

    Fit: ClassVar[type[FitOptions]] = IrtFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, IrtFit)
        table = training.table
        found: Abilities
        if options.form == "mirt":
            found = Latent.fit(training.x, table.quality, options.size, options, training.seed, positive=True)
        else:
            found = Response.fit(training.x, table.quality, options.size, options.width, options, training.seed)
        head: Head = found
        if options.warm < 1:
            order = np.random.default_rng([training.seed, 17]).permutation(len(table))[:_STORE]
            head = Warm(found, training.x[np.sort(order)], options.warm, options.nearest)
        return Router(table.members, table.best, head, known(training))
