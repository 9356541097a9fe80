"""Linear bandits: each member's reward is a weighted sum of the embedding, known the better the more was seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.targets.rewards import Reward
from ensemble.outcomes.dense import Dense, Floats, Ints

_BLOCK = 65536
"""Rows summed at once: bounds memory, not results."""


@dataclass
class LinearBandit(Head, kind="linear-bandit"):
    """Ridge regression of the reward for each member, one outcome at a time (LinUCB, as in arXiv 2407.10834).

    A_m = penalty · I + Σ x xᵀ, b_m = Σ reward · x over the outcomes of m; the score is (A_m⁻¹ b_m) · x, its spread
    noise · √(xᵀ A_m⁻¹ x). A constant may be appended to x; the larger it is, the less is its weight held to 0. Scores
    are rewards, in place of quality.
    """

    inverse: Floats
    """[K, D, D] float64, A⁻¹; D is d, and one more with the constant. Members that saw the same queries share one."""
    owned: Ints
    """[M], which of the inverses is whose."""
    target: Floats
    """[M, D] float64, b."""
    weights: Floats
    """[M, D] float64, A⁻¹ b."""
    costs: Floats
    """[M], money that an answer costs where its outcome does not say; NaN where nothing is known."""
    reward: Reward
    penalty: float
    forget: float = 1.0
    """gamma: what the past counts after each outcome of that member; 1: everything counts the same."""
    noise: float = 1.0
    """Standard deviation of one reward, in which the spread is counted."""
    constant: float = 1.0
    """What is appended to each embedding; 0: nothing."""

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
        constant = options.get("constant", 1.0)
        size = x.shape[1] + (constant != 0)
        seen, owned = np.unique(table.observed, axis=1, return_inverse=True)
        design, target = np.tile(penalty * np.eye(size), (seen.shape[1], 1, 1)), np.zeros((len(table.members), size))
        rewards = np.nan_to_num(rewarded(table, costs, reward))
        for start in range(0, len(x), _BLOCK):
            rows = widened(x[start : start + _BLOCK], constant)
            target += rewards[start : start + _BLOCK].T @ rows
            for place, of in enumerate(seen[start : start + _BLOCK].T):
                design[place] += rows[of].T @ rows[of]
        inverse = np.linalg.inv(design)
        weights = np.einsum("mde,me->md", inverse[owned], target)
        return cls(inverse, owned, target, weights, costs, reward, penalty, **options)

    def scores(self, x: Floats) -> Floats:
        return np.asarray(widened(x, self.constant) @ self.weights.T)

    def spread(self, x: Floats) -> Floats:
        rows = widened(x, self.constant)
        width = np.stack([np.einsum("nd,nd->n", rows @ inverse, rows) for inverse in self.inverse], axis=1)
        return np.asarray(self.noise * np.sqrt(np.maximum(width, 0)))[:, self.owned]

    def learn(self, outcome: Outcome) -> None:
        """One rank-one step of that member (Sherman-Morrison); no other one's scores change."""
        m, x = outcome.member, widened(outcome.x[None], self.constant)[0]
        cost = self.costs[m] if np.isnan(outcome.cost) else outcome.cost
        reward = self.reward.of(outcome.quality, float(cost), outcome.latency)
        own = self._own(m)
        inverse, target = self.inverse[own], self.target[m]
        if self.forget < 1:
            # The penalty is put back, or it would be forgotten too and the matrix with it.
            kept = (1 - self.forget) * self.penalty * np.eye(len(x))
            inverse, target = np.linalg.inv(self.forget * np.linalg.inv(inverse) + kept), self.forget * target
        v = inverse @ x
        self.inverse[own] = inverse - np.outer(v, v) / (1 + x @ v)
        self.target[m] = target + reward * x
        self.weights[m] = self.inverse[own] @ self.target[m]

    def _own(self, member: int) -> int:
        """Place of a member's inverse, made its own where others share it."""
        if (self.owned == self.owned[member]).sum() > 1:
            self.inverse = np.concatenate([self.inverse, self.inverse[self.owned[member]][None]])
            self.owned = self.owned.copy()
            self.owned[member] = len(self.inverse) - 1
        return int(self.owned[member])

    def widen(self, x: Floats, quality: Floats) -> LinearBandit:
        rows = widened(x, self.constant)
        rewards = np.array([self.reward.of(float(q)) for q in quality])
        inverse = np.linalg.inv(self.penalty * np.eye(self.inverse.shape[-1]) + rows.T @ rows)
        target = rows.T @ rewards
        return replace(
            self,
            inverse=np.concatenate([self.inverse, inverse[None]]),
            owned=np.append(self.owned, len(self.inverse)),
            target=np.concatenate([self.target, target[None]]),
            weights=np.concatenate([self.weights, (inverse @ target)[None]]),
            costs=np.append(self.costs, np.nan),
        )


def widened(x: Floats, constant: float) -> Floats:
    """[n, D] float64, with the constant as the last column where it is not 0."""
    rows = np.asarray(x, np.float64)
    return np.concatenate([rows, np.full((len(rows), 1), constant)], axis=1) if constant else rows


def rewarded(table: Dense, costs: Floats, reward: Reward) -> Floats:
    """[n, M], NaN where nothing was observed."""
    cost = np.where(np.isnan(table.cost), costs, table.cost)
    rewards = np.full(table.quality.shape, np.nan)
    for cell in zip(*np.nonzero(table.observed), strict=True):
        rewards[cell] = reward.of(float(table.quality[cell]), float(cost[cell]), float(table.latency[cell]))
    return rewards
