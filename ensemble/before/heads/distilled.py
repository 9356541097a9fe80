"""Distilled: a softmax of the query, fitted to shares that are made of qualities and the means of the query's tags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ensemble.before.heads.clusters import TagMeans
from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.linear import Softmax
from ensemble.before.targets.labels import soft
from ensemble.outcomes.dense import Floats

_LEAST = 0.1
"""Propensities below count as this: one outcome never moves the target by more than ten times its error."""


@dataclass
class Distilled(Head, kind="distilled"):
    """A softmax head that keeps the tag means its labels were made of, and so can go on learning."""

    student: Softmax
    tags: TagMeans
    beta: float
    """Part of a label that is the query's own outcome."""
    temperature: float
    """Of the labels; in units of quality."""

    learns: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        return self.student.scores(x)

    def widen(self, x: Floats, quality: Floats) -> Distilled:
        """The newcomer's labels are made as the others' were, where the tag means stand for their qualities."""
        tags = self.tags.widen(x, quality)
        told = tags.scores(x)
        told[:, -1] += self.beta * (quality - told[:, -1])
        student = self.student.joined(x, soft(told, self.temperature)[:, -1])
        return replace(self, student=student, tags=tags)

    def learn(self, outcome: Outcome) -> None:
        """One step towards the label that the outcome makes, then the tag means take it in.

        Nothing is known of who was not asked: the tag means stand for their qualities, and the error of the one asked
        is weighed by 1 ÷ propensity, so that labels are right on average over the draws.
        """
        told = self.tags.scores(outcome.x[None])[0]
        error = outcome.quality - told[outcome.member]
        told[outcome.member] += self.beta * error / max(outcome.propensity, _LEAST)
        self.student.follow(outcome.x, soft(told[None], self.temperature)[0])
        self.tags.learn(outcome)
