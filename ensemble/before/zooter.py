"""Zooter: rewards of all members' answers, distilled into a router that reads the query alone."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from ensemble.before.costs.cost import known
from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.heads.clusters import TagMeans
from ensemble.before.heads.distilled import Distilled
from ensemble.before.heads.linear import RATE, Softmax
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.before.routing.router import Router
from ensemble.before.targets.labels import has_tasks, numbered, reward, scale, smoothed, soft
from ensemble.before.targets.tags import NearestTags, centroids, clustered
from ensemble.member import Capability
from ensemble.method import Stage, method
from ensemble.outcomes.dense import Floats, Ints


class ZooterFit(FitOptions):
    """Options of the fit of ``zooter``."""

    beta: float = Field(default=0.3, ge=0, le=1)
    """Part of a label that is the query's own reward; the rest is the mean of its tag. Omitted: 0.3."""
    temperature: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    """Of the labels, in standard deviations of the rewards. Omitted: 0.2."""
    penalty: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Of the squared weights, on rows of unit length. Omitted: 10."""
    tags: int = Field(default=32, ge=1)
    """Clusters that stand for tags where the table tells no tasks. Omitted: 32."""
    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Reward is quality − price × cost ÷ the dearest member's mean cost. Omitted: 0."""
    rate: float = Field(default=RATE, ge=0, le=1)
    """Of steps in service; 0: only tag means learn. Omitted: 0.05."""


@method("zooter", stage=Stage.BEFORE, paper="2311.08692", needs={Capability.GENERATE}, options=RoutingOptions)
class Zooter(Routing):
    """Distillation of rewards (arXiv 2311.08692): least KL(P ‖ softmax(h(x))), P = softmax of beta × reward +
    (1 − beta) × the mean reward of the query's tag. Scores say who is the one to ask, not how well that one will do.

    Asks of members: one answer of the chosen one. The table's quality is the reward: of a reward model, or of answers.

    Departures from the paper and its code:

    * h is linear in the embedding, where the paper trains mDeBERTa.
    * A query has one tag: its task, or its cluster where the table tells none. The paper's tagger gives several.
    * Rewards are divided by their standard deviation, and the labels have a temperature: on qualities of 0 to 1 the
      paper's softmax would make all shares nearly the same.
    * A hole takes its tag's mean.
    """

    Fit: ClassVar[type[FitOptions]] = ZooterFit

    @classmethod
    def fit(cls, training: Training, options: FitOptions) -> Router:
        assert isinstance(options, ZooterFit)
        table, x = training.table, training.x
        rewards = reward(table.quality, table.cost, options.price)
        tags, centres = _tags(training, options)
        label = labels(rewards, tags, options.beta, options.temperature)
        student = Softmax.fit(x, label, options.penalty, rate=options.rate)
        own = np.eye(len(centres))[tags]
        means = TagMeans(NearestTags(centres, 1, 0.0), own.T @ np.nan_to_num(rewards), own.T @ ~np.isnan(rewards), 1.0)
        head = Distilled(student, means, options.beta, options.temperature * scale(rewards))
        return Router(table.members, table.best, head, known(training))


def labels(rewards: Floats, tags: Ints, beta: float, temperature: float) -> Floats:
    """[n, M], shares that sum to 1 over the members of whom the query or its tag says something.

    Args:
        temperature: in standard deviations of the rewards.
    """
    return soft(smoothed(rewards, tags, beta), temperature * scale(rewards))


def _tags(training: Training, options: ZooterFit) -> tuple[Ints, Floats]:
    """[n] of 0 … K − 1, and the centres [K, d] of these tags."""
    if has_tasks(training.table):
        tags = numbered(training.table.tasks)[0]
        return tags, centroids(training.x, tags)
    centres = clustered(training.x, options.tags, training.seed)
    return (training.x @ centres.T).argmax(axis=1), centres
