"""Linear bandits: each member's reward is a weighted sum of the embedding, known the better the more was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.rewards import Reward
from ensemble.outcomes.dense import Dense, Floats

_BLOCK = 65536
"""Rows summed at once: bounds memory, not results."""


@dataclass
class LinearBandit(Head, kind="linear-bandit"):
    """Ridge regression of the reward for each member, one outcome at a time (LinUCB, as in arXiv 2407.10834).

    A_m = penalty · I + Σ x xᵀ, b_m = Σ reward · x over the outcomes of m; the score is (A_m⁻¹ b_m) · x, its spread
    noise · √(xᵀ A_m⁻¹ x). A constant is appended to x, 1 where ``constant``. Rewards are in place of quality.
    """

    inverse: Floats
    """[M, D, D] float64, A⁻¹; D is d, and one more with the constant."""
    target: Floats
    """[M, D] float64, b."""
    costs: Floats
    """[M], money that an answer costs where its outcome does not say; NaN where nothing is known."""
    reward: Reward
    penalty: float
    forget: float = 1.0
    """gamma: what the past counts after each outcome of that member; 1: everything counts the same."""
    noise: float = 1.0
    """Standard deviation of one reward, in which the spread is counted."""
    constant: bool = True

    learns: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    @classmethod
    def fit(
        cls, x: Floats, table: Dense, costs: Floats, reward: Reward, penalty: float, **options: float
    ) -> LinearBandit:
        """As if each observed cell had been an outcome, in any order.

        Args:
            x: [n, d].
            table: n queries.
            costs: [M], mean cost of an answer, NaN where not known.
            options: ``forget``, ``noise`` and ``constant``, of what comes later: the table counts the same throughout.
        """
        constant = bool(options.get("constant", True))
        size, members = x.shape[1] + constant, len(table.members)
        design, target = np.tile(penalty * np.eye(size), (members, 1, 1)), np.zeros((members, size))
        rewards = rewarded(table, costs, reward)
        for start in range(0, len(x), _BLOCK):
            rows = widened(x[start : start + _BLOCK], constant)
            for m in range(members):
                seen = ~np.isnan(rewards[start : start + _BLOCK, m])
                design[m] += rows[seen].T @ rows[seen]
                target[m] += rows[seen].T @ rewards[start : start + _BLOCK, m][seen]
        return cls(np.linalg.inv(design), target, costs, reward, penalty, **options)  # type: ignore[arg-type]

    @property
    def weights(self) -> Floats:
        """[M, D], theta."""
        return np.asarray(np.einsum("mde,me->md", self.inverse, self.target))

    def scores(self, x: Floats) -> Floats:
        return np.asarray(widened(x, self.constant) @ self.weights.T)

    def spread(self, x: Floats) -> Floats:
        rows = widened(x, self.constant)
        width = np.stack([np.einsum("nd,nd->n", rows @ inverse, rows) for inverse in self.inverse], axis=1)
        return np.asarray(self.noise * np.sqrt(np.maximum(width, 0)))

    def learn(self, outcome: Outcome) -> None:
        """One rank-one step of that member (Sherman-Morrison); no other one's scores change."""
        m, x = outcome.member, widened(outcome.x[None], self.constant)[0]
        cost = self.costs[m] if np.isnan(outcome.cost) else outcome.cost
        reward = self.reward.of(outcome.quality, float(cost), outcome.latency)
        inverse, target = self.inverse[m], self.target[m]
        if self.forget < 1:
            # The penalty is put back, or it would be forgotten too and the matrix with it.
            kept = (1 - self.forget) * self.penalty * np.eye(len(x))
            inverse, target = np.linalg.inv(self.forget * np.linalg.inv(inverse) + kept), self.forget * target
        v = inverse @ x
        self.inverse[m] = inverse - np.outer(v, v) / (1 + x @ v)
        self.target[m] = target + reward * x

    def widen(self, x: Floats, quality: Floats) -> LinearBandit:
        rows = widened(x, self.constant)
        rewards = np.array([self.reward.of(float(q)) for q in quality])
        size = self.inverse.shape[-1]
        inverse = np.linalg.inv(self.penalty * np.eye(size) + rows.T @ rows)
        return LinearBandit(
            np.concatenate([self.inverse, inverse[None]]),
            np.concatenate([self.target, (rows.T @ rewards)[None]]),
            np.append(self.costs, np.nan),
            self.reward,
            self.penalty,
            self.forget,
            self.noise,
            self.constant,
        )


def widened(x: Floats, constant: bool) -> Floats:
    """[n, D] float64, with a last column of ones where asked for."""
    rows = np.asarray(x, np.float64)
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1) if constant else rows


def rewarded(table: Dense, costs: Floats, reward: Reward) -> Floats:
    """[n, M], NaN where nothing was observed."""
    cost = np.where(np.isnan(table.cost), costs, table.cost)
    rewards = np.full(table.quality.shape, np.nan)
    for cell in zip(*np.nonzero(table.observed), strict=True):
        rewards[cell] = reward.of(float(table.quality[cell]), float(cost[cell]), float(table.latency[cell]))
    return rewards
