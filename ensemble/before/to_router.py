"""TO-Router: a classifier of the expert to ask, from labels that keep how close the others came."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.linear import Softmax
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import reward, scale, soft
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method


class ToRouterFit(FitOptions):
    """Options of the fit of ``to_router``."""

    temperature: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Of the labels, in standard deviations of the quality; 0: all to the best, equal ones share. Omitted: 2."""
    penalty: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Of the squared weights, on rows of unit length. Omitted: 10."""
    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Labels are of quality − price × cost ÷ the dearest member's mean cost. Omitted: 0."""


@method("to_router", stage=Stage.BEFORE, paper="2408.12320", needs={Capability.GENERATE}, options=RoutingOptions)
class ToRouter(Routing):
    """Soft cross entropy (arXiv 2408.12320): least −Σ y log softmax(h(x)), y = softmax of quality ÷ temperature over
    the members that the query was put to. Scores say who is the one to ask, not how well that one will do.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * Labels are of the table's quality, which need not be the answers' similarity to a reference: that rewards wording.
    * The temperature goes with the spread of the qualities: at the paper's 1 labels of similarities, which lie close
      together, are nearly uniform. Of right and wrong answers 2 standard deviations are about 1.
    * h is linear in the embedding, where the paper compares neighbours (here: ``knn_router``), a perceptron and BERT.
    * Time is not weighed; cost is, in the labels (``price``) or by the policy.
    """

    Fit: ClassVar[type[FitOptions]] = ToRouterFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, ToRouterFit)
        table = training.table
        rewards = reward(table.quality, table.cost, options.price)
        temperature = options.temperature * scale(rewards)
        label = soft(rewards, temperature)
        if (~np.isnan(label)).sum(axis=1).max(initial=0) < 2:
            raise BadRequest("no query of the table was put to two members; to_router learns from how they compare")
        head = Softmax.fit(training.x, label, options.penalty)
        if temperature > 0:
            # A newcomer's qualities are held against rewards: it is taken to cost what the others do.
            spent = float(np.nanmean(table.quality - rewards))
            head = head.over(training.x, rewards + spent, temperature)
        return Router(table.members, table.best, head, known(training))
