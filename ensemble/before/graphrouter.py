"""GraphRouter: a graph of queries and members, whose edges are outcomes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.graph import Graph
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.member import Capability
from ensemble.method import Stage, method


class GraphrouterFit(Descent):
    """Options of the fit of ``graphrouter``."""

    epochs: int = Field(default=200, ge=1)
    """Passes over the queries at most. Omitted: 200."""
    patience: int = Field(default=20, ge=1)
    """Passes without a lower loss on a tenth of the queries, held out, after which no more are made; which edges are
    hidden makes that loss vary. Omitted: 20."""
    batch: int = Field(default=1024, ge=1)
    """Queries for each step; a member's state while fitting is made of them. Omitted: 1024."""
    size: int = Field(default=64, ge=1)
    """Numbers in a node's state. Omitted: 64."""
    hidden: float = Field(default=0.3, gt=0, lt=1)
    """Share of the edges that each step hides and foretells from the others. Omitted: 0.3."""


@method("graphrouter", stage=Stage.BEFORE, paper="2410.03834", needs={Capability.GENERATE}, options=RoutingOptions)
class GraphRouter(Routing):
    """GraphRouter (arXiv 2410.03834): P(right) = sigmoid(mean(x0 * z_m) + b_m), where x0 is the aligned query, z_m two
    layers on the messages of the outcomes that the member has had, and b_m the log-odds of their mean.

    A query in service has no edges, so z does not depend on it and is made once for all. Every outcome in service is an
    edge more; no weight changes.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * A member's state is made from its outcomes alone; texts that describe tasks and members are not read.
    * Edges foretell quality, graded or 0/1, of every member; not who is the best, of whom there often are several.
    * A member of few outcomes is drawn to a mean one, and its mean quality stands beside the network. Of a member that
      comes after the fit, z and b are the likeliest given its outcomes and how those of the others are spread: its
      messages would put it in a worse order with every outcome, up to hundreds.
    * Messages are linear in the query and gated by the edge's quality and cost: their sums are all that is kept.
    * The number of passes is chosen on queries held out from the fit, not on the test set.
    """

    Fit: ClassVar[type[FitOptions]] = GraphrouterFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, GraphrouterFit)
        table = training.table
        cost = table.cost.astype(np.float64)
        head = Graph.fit(training.x, table.quality, cost, options.size, options.hidden, options, training.seed)
        return Router(table.members, table.best, head, known(training))
