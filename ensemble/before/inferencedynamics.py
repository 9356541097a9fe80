"""InferenceDynamics: members are profiled along capabilities and knowledge; a query is matched with the profiles."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ensemble.before.costs.by_tags import tagged_or_known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.clusters import Blend, TagMeans
from ensemble.before.heads.head import Head
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import has_tasks, numbered
from ensemble.before.targets.tags import RankedTags, centroids, clustered
from ensemble.member import Capability
from ensemble.method import Stage, method


class DynamicsFit(FitOptions):
    """Options of the fit of ``inferencedynamics``."""

    elements: int = Field(default=3, ge=1)
    """Capabilities, and areas of knowledge, that a query is taken to need at most. Omitted: 3."""
    decay: float = Field(default=0.5, ge=0, le=1)
    """The j-th counts decay^(j − 1), made to sum to 1; 0: the first alone, 1: all the same. Omitted: 0.5."""
    knowledge: int = Field(default=32, ge=1)
    """Areas of knowledge, found by k-means. Omitted: 32."""
    pseudo: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Observations that a member's overall mean counts for in each element of its profile. Omitted: 5."""


@method(
    "inferencedynamics", stage=Stage.BEFORE, paper="2505.16303", needs={Capability.GENERATE}, options=RoutingOptions
)
class InferenceDynamics(Routing):
    """Profiles of members over capabilities and knowledge (arXiv 2505.16303): a member's score is the sum, over what a
    query needs, of share × mean quality − price × cost at it, where the j-th need has the share decay^(j − 1) ÷ Σ.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * No model names the needs of each query, which costs a call. Capabilities are the table's tasks, where it tells
      them, and areas of knowledge are clusters; the nearest centres are the needs, in order.
    * The two kinds of needs count by their mean rather than their sum, so that scores are expected quality.
    * Cost is weighed by the policy, not in the profile: the sums are the same, and one fit serves all prices.
    * Means of few outcomes are drawn to the member's overall mean.
    """

    Fit: ClassVar[type[FitOptions]] = DynamicsFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, DynamicsFit)
        table, quality = training.table, training.table.quality
        areas = clustered(training.x, options.knowledge, training.seed)
        knowledge = RankedTags(areas, min(options.elements, len(areas)), options.decay)
        head: Head = TagMeans.of(knowledge, training.x, quality, options.pseudo)
        if has_tasks(table):
            tasks = centroids(training.x, numbered(table.tasks)[0])
            capabilities = RankedTags(tasks, min(options.elements, len(tasks)), options.decay)
            head = Blend(TagMeans.of(capabilities, training.x, quality, options.pseudo), head)
        return Router(table.members, table.best, head, tagged_or_known(knowledge, training, options.pseudo))
