"""Set policy: probabilities over any set of members, for any preference between quality and cost (arXiv 2502.02743).

A member is what its vector, its predicted score and its cost say; so any subset, in any order, has its own answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.latent import Latent
from ensemble.before.solvers.convex import shared
from ensemble.outcomes.dense import Bools, Floats


@dataclass
class SetPolicy(Head, kind="set-policy"):
    """Softmax over the available members of sharpness · ((1 - w) score - w cost) + a network of the member, the set and
    w, where w is the preference for cheapness.

    The network is told of a member [vector, score, cost, w], of the set the mean of its members' units, and of the
    query the embedding.
    """

    abilities: Latent
    costs: Floats
    """[M], mean costs of an answer, 1 the dearest member's."""
    preference: float
    """w in [0, 1], where nothing else is asked for."""
    sharpness: Floats
    """[1], natural logarithm."""
    tokens: Floats
    """[r + 4, h]: of a member; the last row is the constant."""
    query: Floats
    """[d, h]: of the query."""
    own: Floats
    """[h, h], from a member's units, and"""
    others: Floats
    """[h, h], from the set's."""
    out: Floats
    """[h]."""

    learns: ClassVar[bool] = True
    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        """[n, M], probabilities over all members at the preference; rows sum to 1."""
        return self.chances(x, self.preference)

    def chances(self, x: Floats, preference: float | Floats, available: Bools | None = None) -> Floats:
        """[n, M], probabilities; they sum to 1 over the available members and are 0 elsewhere.

        Args:
            x: [n, d].
            preference: [n] or one number, in [0, 1]: 0 for quality alone, 1 for cheapness alone.
            available: [n, M] or [M], at least one for each query; omitted: all.
        """
        scores = self.abilities.scores(x)
        there = np.broadcast_to(True if available is None else available, scores.shape)
        w = np.broadcast_to(np.asarray(preference, float), len(x))[:, None]
        logits = np.exp(self.sharpness[0]) * self.greedy(scores, w) + self._corrected(x, scores, w, there)
        return shared(np.where(there, logits, -np.inf))

    def greedy(self, scores: Floats, w: Floats) -> Floats:
        """[n, M], the reward that is expected: (1 - w) score - w cost."""
        return np.asarray((1 - w) * scores - w * self.costs)

    def _corrected(self, x: Floats, scores: Floats, w: Floats, there: Bools) -> Floats:
        shape = (*scores.shape, 1)
        told = [
            np.broadcast_to(self.abilities.vectors, (*scores.shape, self.abilities.vectors.shape[1])),
            scores[:, :, None],
            np.broadcast_to(self.costs[:, None], shape),
            np.broadcast_to(w[:, :, None], shape),
        ]
        units = np.maximum(np.concatenate(told, axis=2) @ self.tokens[:-1] + self.tokens[-1], 0)
        among = (units * there[:, :, None]).sum(axis=1) / there.sum(axis=1, keepdims=True)
        context = among @ self.others + x @ self.query
        return np.asarray(np.maximum(units @ self.own + context[:, None, :], 0) @ self.out)

    def learn(self, outcome: Outcome) -> None:
        """What is believed of the member that answered; the policy reads that anew each time."""
        self.abilities.learn(outcome)

    def widen(self, x: Floats, quality: Floats) -> SetPolicy:
        """The new member's cost counts as the mean of the others'."""
        return replace(self, abilities=self.abilities.widen(x, quality), costs=np.append(self.costs, self.costs.mean()))


def telling(abilities: Latent, x: Floats, count: int) -> list[int]:
    """Queries that tell most of a new member: those on which known members differ most, each far from those before.

    Args:
        x: [n, d], unit rows, to choose from.
        count: how many; at most n.

    Returns:
        Positions, the most telling first.
    """
    worth = abilities.scores(x).var(axis=1)
    near = np.zeros(len(x))
    chosen: list[int] = []
    for _ in range(min(count, len(x))):
        left = worth * (1 - near)
        left[chosen] = -1.0
        chosen.append(int(left.argmax()))
        near = np.maximum(near, np.clip(x @ x[chosen[-1]], 0, 1))
    return chosen
