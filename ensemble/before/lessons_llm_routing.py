"""Lessons learned from LLM routing: confidences of right answers, and clusters; what a careful study found wanting."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.clusters import TagTop
from ensemble.before.heads.foretold import Foretold
from ensemble.before.heads.head import Head
from ensemble.before.heads.linear import RATE, Logistic
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import right
from ensemble.before.targets.tags import NearestTags, clustered
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Floats, mean_observed

_OF = {"classifier": {"decision", "weighted", "penalty", "rate"}, "clusters": {"clusters", "success"}}
"""Options that only one of the two models reads."""


class LessonsFit(FitOptions):
    """Options of the fit of ``lessons_llm_routing``."""

    model: Literal["classifier", "clusters"] = "classifier"
    """Logistic heads, or success in clusters of queries. Omitted: classifier."""
    decision: Literal["confidence", "foretold", "sorted"] = "confidence"
    """``confidence``: the highest. ``foretold``: the nearest to what a regression on all confidences expects of the
    first member that is right; ``sorted``: the same with the members in order of how often they are right. Omitted:
    confidence."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """From which quality on an answer, or most samples of one, are right. Omitted: quality is what is foretold; who is
    right, for the decisions that ask it, 0.5."""
    weighted: bool = False
    """Right and wrong answers of a member count alike in sum, however often it is right. Omitted: no."""
    penalty: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Of the squared weights, on rows of unit length. Omitted: 10."""
    rate: float = Field(default=RATE, ge=0, le=1)
    """Of steps in service; 0: none. Omitted: 0.05."""
    clusters: int = Field(default=50, ge=1)
    """Of k-means. Omitted: 50."""
    success: float = Field(default=0.99, ge=0, allow_inf_nan=False)
    """Members of a cluster that are right so often vote on its queries; nobody: the best one answers. Omitted: 0.99."""

    @model_validator(mode="after")
    def _read(self) -> LessonsFit:
        unread = set().union(*(options for model, options in _OF.items() if model != self.model))
        if given := sorted(unread & self.model_fields_set):
            raise ValueError(f"the model {self.model} does not read {', '.join(given)}")
        return self


@method(
    "lessons_llm_routing", stage=Stage.BEFORE, paper="2405.00467", needs={Capability.GENERATE}, options=RoutingOptions
)
class LessonsLlmRouting(Routing):
    """Confidences of being right, one logistic head for each member, or success in clusters (arXiv 2405.00467). The
    paper's finding is negative: at best the best single member, at less latency.

    Asks of members: one answer of the chosen one; with clusters and the policy ``subset``, one of each good member.

    Departures from the paper and its code:

    * Heads are linear in the embedding, where the paper tunes RoBERTa; clusters are of embeddings, not of TF-IDF.
    * A label is the quality itself, unless a threshold is given; the paper's is 1 where most of ten samples are right.
    * Clusters are made of the queries of the fit alone; the paper's code clusters the test questions with them.
    * A random one of the three most confident where nobody is confident is a policy: ``unsure``. The vote of a
      cluster's members is another: ``subset``, with ``weighted: false`` and a size of all members.
    """

    Fit: ClassVar[type[FitOptions]] = LessonsFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, LessonsFit)
        table = training.table
        truth = right(table.quality, options.threshold)
        make = _classifier if options.model == "classifier" else _clusters
        return Router(table.members, table.best, make(training, truth, options), known(training))


def _classifier(training: Training, truth: Floats, options: LessonsFit) -> Head:
    weight = even(truth) if options.weighted else None
    head = Logistic.fit(training.x, truth, options.penalty, weight=weight, rate=options.rate)
    if options.decision == "confidence":
        return head
    order = np.arange(truth.shape[1])
    if options.decision == "sorted":
        order = np.argsort(-mean_observed(truth, empty=0.0), kind="stable")
    return Foretold.fit(head, training.x, right(training.table.quality, options.threshold or 0.5), order)


def _clusters(training: Training, truth: Floats, options: LessonsFit) -> Head:
    tagger = NearestTags(clustered(training.x, options.clusters, training.seed), 1, 0.0)
    made = TagTop.of(tagger, training.x, truth)
    return TagTop(tagger, made.sums, made.counts, least=options.success)


def even(truth: Floats) -> Floats:
    """[n, M], weights by which a member's right and wrong answers each make half of the sum; 1 on average."""
    share = mean_observed(truth, empty=0.5)
    of_right = np.where(share > 0, 0.5 / np.where(share > 0, share, 1), 1.0)
    of_wrong = np.where(share < 1, 0.5 / np.where(share < 1, 1 - share, 1), 1.0)
    return np.where(np.isnan(truth), 0.0, truth * of_right + (1 - truth) * of_wrong)
