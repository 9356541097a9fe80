"""RouterDC: dual contrastive learning puts queries near the members that answer them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.contrastive import Contrast, Contrastive, fit
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.solvers.descent import Descent
from ensemble.errors import BadRequest
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Floats


class RouterdcFit(Descent):
    """Options of the fit of ``routerdc``."""

    size: int = Field(default=128, ge=1)
    """Dimensions of the space of queries and members. Omitted: 128."""
    positives: int = Field(default=3, ge=1)
    """Best members of a query that it is drawn to. Omitted: 3."""
    negatives: int = Field(default=3, ge=1)
    """Worst members of a query that it is pushed away from. Omitted: 3."""
    temperature: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Cosines are divided by it while fitting. Omitted: 0.1."""
    clusters: int = Field(default=8, ge=1)
    """Clusters of queries, for the loss between queries. Omitted: 8."""
    weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Of the loss between queries; 0: none. Omitted: 0.1."""
    others: int = Field(default=3, ge=1)
    """Queries of other clusters that each query is pushed away from. Omitted: 3."""
    cost_rate: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Quality that a unit of money is worth: it is taken off before positives and negatives are chosen. Omitted: 0."""
    fidelity: Literal["sound", "reference"] = "sound"
    """``reference``: as published, temperature and weight 1 where they are not given, and of members that are level the
    first in order count. Omitted: sound."""


@method("routerdc", stage=Stage.BEFORE, paper="2409.19886", needs={Capability.GENERATE}, options=RoutingOptions)
class RouterDc(Routing):
    """Query-based routing by dual contrastive learning (arXiv 2409.19886): the member with the largest
    cos(W x, k_m). W and k are fitted to draw a query to its best members and away from its worst (sample-LLM), and
    queries of a cluster to each other (sample-sample).

    Scores are cosines, which rank members and are no probabilities: policies that weigh them against cost in money need
    another price than those of expected quality. A new member is put at the mean of the queries that it answers.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * The sentence encoder is frozen and a linear map of its embeddings is learned; the paper trains the encoder.
    * Of members that are equally right all count as positives, and as negatives if wrong: with 0/1 outcomes most are
      level, and which three come first would be their order.
    * Temperature 0.1, not 1, at which the gradients are weak; a tenth of the weight on the loss between queries.
    * A query is never its own positive; clusters come from k-means on the embeddings, without t-SNE.
    * The number of passes is chosen on queries held out from the fit, not on the test set.
    """

    Fit: ClassVar[type[FitOptions]] = RouterdcFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, RouterdcFit)
        head = _head(training, options)
        return Router(training.table.members, training.table.best, head, known(training))


def _head(training: Training, options: RouterdcFit) -> Contrastive:
    reference, given = options.fidelity == "reference", options.model_fields_set
    contrast = Contrast(
        size=options.size,
        positives=options.positives,
        negatives=options.negatives,
        temperature=1.0 if reference and "temperature" not in given else options.temperature,
        weight=1.0 if reference and "weight" not in given else options.weight,
        others=options.others,
        ties=not reference,
    )
    clusters = _clusters(training.x, options.clusters, training.seed)
    return fit(training.x, _worth(training, options.cost_rate), clusters, contrast, options, training.seed)


def _worth(training: Training, rate: float) -> Floats:
    """[n, M], quality less cost."""
    table = training.table
    if not rate:
        return table.quality
    if np.isnan(table.cost[table.observed]).any():
        raise BadRequest("cost_rate needs the cost of every observed answer, which this table lacks", param="cost_rate")
    return np.asarray(table.quality - rate * table.cost)


def _clusters(x: Floats, count: int, seed: int) -> Floats:
    """[n], the cluster of each query."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(min(count, len(x)), n_init=1, random_state=seed).fit_predict(x), np.float32)
