"""Bench-CoE: an expert for each subject, or for each query, known from benchmark results alone."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.clusters import TagMeans, TagWinners
from ensemble.before.heads.head import Head
from ensemble.before.heads.linear import Ridge, Softmax
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import best, has_tasks, numbered, smoothed
from ensemble.before.targets.tags import classified, clustered
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Ints


class BenchCoeFit(FitOptions):
    """Options of the fit of ``bench_coe``."""

    level: Literal["subject", "query"] = "subject"
    """What labels are of: a subject's means, which carry over to new tasks, or single queries. Omitted: subject."""
    labels: Literal["soft", "hard"] = "soft"
    """``hard``: the name of the best member alone; ``soft``: how good each one is. Omitted: soft."""
    penalty: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Of the squared weights of the classifier or regression, on rows of unit length. Omitted: 10."""
    beta: float = Field(default=1.0, ge=0, le=1)
    """At the query level: part of a soft label that is the query's own outcome; the rest is the mean of its subject.
    Omitted: 1."""
    subjects: int = Field(default=32, ge=1)
    """Clusters that stand for subjects where the table tells no tasks. Omitted: 32."""
    pseudo: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Observations that a member's overall mean counts for in each subject. Omitted: 5."""


@method("bench_coe", stage=Stage.BEFORE, paper="2412.04167", needs={Capability.GENERATE}, options=RoutingOptions)
class BenchCoe(Routing):
    """Experts by benchmark (arXiv 2412.04167): Σ over subjects of P(subject | query) × what a member is worth there, or
    a linear model of who answers the single query well.

    Asks of members: one answer of the chosen one.

    Departures from the paper and its code:

    * The classifier is a linear one on the embedding, not a fine-tuned BERT.
    * A subject speaks for its best member alone only with ``labels: hard``: near ties, on which all depends, are no
      matter of yes or no.
    * Queries that nobody answered right say nothing under hard labels and are left out of them.
    * Subjects are clusters where the table tells no tasks.
    """

    Fit: ClassVar[type[FitOptions]] = BenchCoeFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, BenchCoeFit)
        table = training.table
        head = _of_subjects(training, options) if options.level == "subject" else _of_queries(training, options)
        return Router(table.members, table.best, head, known(training))


def _of_subjects(training: Training, options: BenchCoeFit) -> Head:
    subjects = _subjects(training, options)
    tagger = classified(training.x, subjects, options.penalty)
    kind = TagMeans if options.labels == "soft" else TagWinners
    # A subject's profile is of its own queries, however the classifier would read them.
    own = np.eye(tagger.size)[subjects]
    quality = training.table.quality
    return kind(tagger, own.T @ np.nan_to_num(quality), own.T @ ~np.isnan(quality), options.pseudo)


def _of_queries(training: Training, options: BenchCoeFit) -> Head:
    quality = training.table.quality
    if options.labels == "hard":
        return Softmax.fit(training.x, best(quality), options.penalty)
    if options.beta < 1:
        quality = smoothed(quality, _subjects(training, options), options.beta)
    return Ridge.fit(training.x, quality, options.penalty)


def _subjects(training: Training, options: BenchCoeFit) -> Ints:
    """[n], of 0 … K − 1."""
    if has_tasks(training.table):
        return numbered(training.table.tasks)[0]
    centres = clustered(training.x, options.subjects, training.seed)
    return np.unique((training.x @ centres.T).argmax(axis=1), return_inverse=True)[1]
