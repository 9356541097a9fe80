"""Clusters: a member does on a query as well as it did, on average, on the kinds of queries that it belongs to.

How a query belongs to kinds is a tagger's business. What is kept are running sums: to learn an outcome is exact, as if
it had been there at the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.targets.labels import soft
from ensemble.before.targets.tags import Tagger
from ensemble.outcomes.dense import Floats

_BLOCK = 8192
"""Rows tagged at once: bounds memory, not results."""


@dataclass
class TagMeans(Head, kind="tag-means"):
    """Mean quality of each member under each tag, weighted by what the tags count for the query."""

    tagger: Tagger
    sums: Floats
    """[K, M], quality of the outcomes under each tag."""
    counts: Floats
    """[K, M], how many they are."""
    pseudo: float = 0.0
    """Observations that a member's overall mean counts for under each tag."""

    learns: ClassVar[bool] = True

    @classmethod
    def of(cls, tagger: Tagger, x: Floats, quality: Floats, pseudo: float = 0.0) -> TagMeans:
        """
        Args:
            x: [n, d], unit rows.
            quality: [n, M], NaN where not observed.
        """
        return cls(tagger, *credited(tagger, x, quality), pseudo)

    @property
    def means(self) -> Floats:
        """[K, M]; a member without any outcome has 0."""
        return smooth(self.sums, self.counts, self.pseudo)

    def values(self) -> Floats:
        """[K, M], what a tag says of each member."""
        return self.means

    def scores(self, x: Floats) -> Floats:
        return self.tagger.weights(x) @ self.values()

    def learn(self, outcome: Outcome) -> None:
        """A step of the running sums of that member, in time K · d."""
        credit = self.tagger.credit(outcome.x[None])[0]
        self.sums[:, outcome.member] += credit * outcome.quality
        self.counts[:, outcome.member] += credit

    def widen(self, x: Floats, quality: Floats) -> Self:
        """Starts with one observation, of its own mean quality or else the members' mean, spread over the tags."""
        size = len(self.sums)
        mean = quality.mean() if len(quality) else smooth(self.sums, self.counts, 1.0).mean()
        rows = np.asarray(x, float)
        sums, counts = credited(self.tagger, rows, quality[:, None])
        wider = np.hstack([self.sums, sums + mean / size])
        return replace(self, sums=wider, counts=np.hstack([self.counts, counts + 1 / size]))


@dataclass
class TagWinners(TagMeans, kind="tag-winners"):
    """A tag speaks for its best member alone, equal ones share; a score says how likely a member is the expert."""

    probabilities: ClassVar[bool] = False

    def values(self) -> Floats:
        return soft(self.means, 0.0)


@dataclass
class TagTop(TagMeans, kind="tag-top"):
    """A tag speaks for its members of some quality, and for its best one if nobody has it; others score 0."""

    least: float = 0.99
    """That quality."""

    probabilities: ClassVar[bool] = False

    def values(self) -> Floats:
        means = self.means
        good = (means >= self.least) | (means == means.max(axis=1, keepdims=True))
        return np.where(good, means, 0.0)


@dataclass
class TagRanks(TagMeans, kind="tag-ranks"):
    """A tag gives 1 ÷ (rank + 1), the rank from 0 by quality and cheapness (arXiv 2508.12631, as published)."""

    balance: float = 0.5
    """What quality counts against cheapness."""
    money: Floats | None = None
    """[K, M], cost of the outcomes under each tag."""
    paid: Floats | None = None
    """[K, M], how many of them told a cost."""

    probabilities: ClassVar[bool] = False

    def values(self) -> Floats:
        cost = np.zeros_like(self.sums)
        if self.money is not None and self.paid is not None:
            cost = smooth(self.money, self.paid, 0.0)
        score = balanced(self.means, cost, self.balance)
        ranks = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")
        return np.asarray(1.0 / (ranks + 1))

    def learn(self, outcome: Outcome) -> None:
        super().learn(outcome)
        if self.money is not None and self.paid is not None and not np.isnan(outcome.cost):
            credit = self.tagger.credit(outcome.x[None])[0]
            self.money[:, outcome.member] += credit * outcome.cost
            self.paid[:, outcome.member] += credit

    def widen(self, x: Floats, quality: Floats) -> Self:
        """Until it is told, the new member's cost under a tag is the mean of the others'."""
        wider = super().widen(x, quality)
        if self.money is None or self.paid is None:
            return wider
        costs = smooth(self.money, self.paid, 0.0).mean(axis=1, keepdims=True)
        return replace(wider, money=np.hstack([self.money, costs]), paid=np.hstack([self.paid, np.ones_like(costs)]))

    def priced(self, cost: float) -> Self:
        if self.money is None or self.paid is None:
            return self
        money, paid = self.money.copy(), self.paid.copy()
        money[:, -1], paid[:, -1] = cost, 1.0
        return replace(self, money=money, paid=paid)


@dataclass
class Blend(Head, kind="blend"):
    """The mean of two heads' scores."""

    first: Head
    second: Head

    learns: ClassVar[bool] = True

    def scores(self, x: Floats) -> Floats:
        return (self.first.scores(x) + self.second.scores(x)) / 2

    def learn(self, outcome: Outcome) -> None:
        for head in (self.first, self.second):
            if head.learns:
                head.learn(outcome)

    def widen(self, x: Floats, quality: Floats) -> Blend:
        return Blend(self.first.widen(x, quality), self.second.widen(x, quality))


def credited(tagger: Tagger, x: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Sums and counts [K, M] of values [n, M] under each tag; holes count nowhere."""
    sums = np.zeros((tagger.size, values.shape[1]))
    counts = np.zeros_like(sums)
    for start in range(0, len(values), _BLOCK):
        rows = slice(start, start + _BLOCK)
        credit = tagger.credit(x[rows])
        sums += credit.T @ np.nan_to_num(values[rows])
        counts += credit.T @ ~np.isnan(values[rows])
    return sums, counts


def smooth(sums: Floats, counts: Floats, pseudo: float) -> Floats:
    """Means [K, M], each tag's drawn to the member's mean over all tags, which stands where nothing else is known."""
    total = counts.sum(axis=0)
    overall = np.where(total > 0, sums.sum(axis=0) / np.where(total > 0, total, 1), 0.0)
    has = counts + pseudo
    return np.where(has > 0, (sums + pseudo * overall) / np.where(has > 0, has, 1), overall)


def balanced(quality: Floats, cost: Floats, balance: float) -> Floats:
    """balance × (quality − least) ÷ (most − least) + (1 − balance) × (1 − cost ÷ most cost), over each row's members.

    Rows in which all are equally good have quality 1; rows in which nothing is paid, cheapness 1.
    """
    low, high = quality.min(axis=1, keepdims=True), quality.max(axis=1, keepdims=True)
    scaled = np.where(high > low, (quality - low) / np.where(high > low, high - low, 1), 1.0)
    most = cost.max(axis=1, keepdims=True)
    return np.asarray(balance * scaled + (1 - balance) * (1 - cost / np.where(most > 0, most, 1)))
