"""Routoo: a predictor of each member's score, and a pool chosen so that its members cover the queries."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.pool import select_pool
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.network import Network
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method

_FEWEST = 10
"""Queries of which a pool can be chosen: two are held out."""


class RoutooFit(Descent):
    """Options of the fit of ``routoo``."""

    width: int = Field(default=64, ge=1)
    """Hidden units of the predictor. Omitted: 64."""
    pool: int | None = Field(default=None, ge=1)
    """Members that are kept at most, chosen for what they cover together. Omitted: all."""


@method("routoo", stage=Stage.BEFORE, paper="2401.13979", needs={Capability.GENERATE}, options=RoutingOptions)
class Routoo(Routing):
    """Routoo (arXiv 2401.13979): a network on the query and a learned vector of each member predicts its score; with
    ``pool``, only members that together cover the queries are kept, picked greedily.

    The paper's budget selector, the highest score - lambda × cost with lambda set by a mean budget, is the policy
    ``utility`` with a calibrated price, or ``assign`` over a batch. An ensemble is then of the pool's members only.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * A frozen sentence encoder with one hidden layer stands for the language model of 7 billion weights.
    * The pool is chosen by scores predicted for queries held out from the fit: true outcomes choose by luck, and what
      an oracle would make of a pool is not what its router does.
    """

    Fit: ClassVar[type[FitOptions]] = RoutooFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, RoutooFit)
        kept = training if options.pool is None else _pooled(training, options)
        table = kept.table
        return Router(table.members, table.best, _predictor(kept, options), known(kept))


def _predictor(training: Training, options: RoutooFit) -> Network:
    table = training.table
    return Network.fit(training.x, table.quality, table.members, options.width, options, training.seed)


def _pooled(training: Training, options: RoutooFit) -> Training:
    """Of the pool's members, in the table's order, and of queries at which one of them was observed."""
    if len(training.table) < _FEWEST:
        raise BadRequest(f"a pool is chosen from {_FEWEST} queries or more; the table has {len(training.table)}")
    fitted, held = training.held_out()
    scores = _predictor(fitted, options).scores(held.x)
    pool = select_pool(scores, k=options.pool)
    table = training.table.among([training.table.members[m] for m in sorted(pool)])
    return replace(training, table=table).rows(np.asarray(table.observed.any(axis=1)))
