"""Arms: members by the rewards of their own answers so far, whatever the query. They start from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.targets.rewards import Reward
from ensemble.outcomes.dense import Floats

_LEAST = 1e-12
"""Probability below which no logarithm is taken."""


@dataclass
class Automaton(Head, kind="reward-inaction"):
    """Linear reward-inaction (arXiv 2412.12170): p_m += b R (1 - p_m), p_j -= b R p_j for the others.

    Scores are ln p, so that a draw by softmax at temperature 1 is a draw by p. Rewards are cut to [0, 1]: a negative
    one would lead out of the simplex.
    """

    p: Floats
    """[M], sum 1."""
    reward: Reward
    step: float = 0.1
    """b, 0 to 1."""
    settled: float = 0.99
    """Once one has this probability nothing changes any more."""

    learns: ClassVar[bool] = True
    reads: ClassVar[bool] = False
    probabilities: ClassVar[bool] = False

    @classmethod
    def cold(cls, members: int, reward: Reward, step: float = 0.1, settled: float = 0.99) -> Automaton:
        return cls(np.full(members, 1 / members), reward, step, settled)

    def scores(self, x: Floats) -> Floats:
        return np.tile(np.log(np.maximum(self.p, _LEAST)), (len(x), 1))

    def learn(self, outcome: Outcome) -> None:
        if self.p.max() >= self.settled:
            return
        reward = self.reward.of(outcome.quality, outcome.cost, outcome.latency)
        share = self.step * min(1.0, max(0.0, reward))
        p = self.p * (1 - share)
        p[outcome.member] += share
        self.p = p / p.sum()

    def widen(self, x: Floats, quality: Floats) -> Automaton:
        """The new member gets an even share, taken from all."""
        even = 1 / (len(self.p) + 1)
        return Automaton(np.append(self.p * (1 - even), even), self.reward, self.step, self.settled)


@dataclass
class Values(Head, kind="arm-values"):
    """A running value of each member's reward: Q += a (R - Q), or the mean where a is 0.

    The spread is √(2 ln t ÷ n_m) where ``by`` is ucb1 (t outcomes in all, n_m of the member; UCB1), else the standard
    deviation of the mean, as of a reward in [0, 1] seen once more at 0 and once at 1.
    """

    q: Floats
    """[M]."""
    counts: Floats
    """[M], outcomes of each."""
    reward: Reward
    step: float = 0.0
    """a; 0: the mean of all."""
    by: str = "ucb1"
    """What the spread is: ucb1 or thompson."""

    learns: ClassVar[bool] = True
    reads: ClassVar[bool] = False
    probabilities: ClassVar[bool] = False

    @classmethod
    def cold(cls, members: int, reward: Reward, start: float = 1.0, step: float = 0.0, by: str = "ucb1") -> Values:
        """
        Args:
            start: value of whom nobody has seen; above what rewards reach, each is tried.
        """
        return cls(np.full(members, float(start)), np.zeros(members), reward, step, by)

    def scores(self, x: Floats) -> Floats:
        return np.tile(self.q, (len(x), 1))

    def spread(self, x: Floats) -> Floats:
        if self.by == "ucb1":
            total = max(2.0, float(self.counts.sum()))
            each = np.sqrt(2 * np.log(total) / np.maximum(self.counts, 1 / total))
        else:
            right = np.clip(self.q, 0, 1) * self.counts + 1
            wrong = (1 - np.clip(self.q, 0, 1)) * self.counts + 1
            each = np.sqrt(right * wrong / (right + wrong) ** 2 / (right + wrong + 1))
        return np.tile(each, (len(x), 1))

    def learn(self, outcome: Outcome) -> None:
        m = outcome.member
        reward = self.reward.of(outcome.quality, outcome.cost, outcome.latency)
        q, counts = self.q.copy(), self.counts.copy()
        counts[m] += 1
        q[m] += (self.step or 1 / counts[m]) * (reward - q[m])
        self.q, self.counts = q, counts

    def widen(self, x: Floats, quality: Floats) -> Values:
        wider = Values(
            np.append(self.q, max(1.0, float(self.q.max()))), np.append(self.counts, 0), self.reward, self.step, self.by
        )
        for row, reached in zip(x, quality, strict=True):
            wider.learn(Outcome(x=row, member=len(self.q), quality=float(reached)))
        return wider


@dataclass
class Constant(Head, kind="constant"):
    """The same scores for each query, for good: weights of a draw, or what an operator has declared."""

    values: Floats
    """[M]."""

    reads: ClassVar[bool] = False
    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        return np.tile(self.values, (len(x), 1))

    def widen(self, x: Floats, quality: Floats) -> Constant:
        """The new member gets the mean of the others."""
        return Constant(np.append(self.values, self.values.mean()))
