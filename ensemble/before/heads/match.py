"""Match: how likely an arm's answer is as good as the reference member's, which matches itself.

Scores of arms that are one member with more and more samples never fall with the number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.before.heads.head import Head
from ensemble.before.heads.linear import Logistic
from ensemble.before.routing.parts import NeedsFit
from ensemble.before.solvers import newcomer
from ensemble.before.solvers.convex import sigmoid
from ensemble.outcomes.dense import Floats, Ints

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass
class Match(Head, kind="match"):
    """Logistic regression of soft labels for each arm but the reference."""

    head: Logistic
    """Of all arms; of the reference how likely it is right itself, which only a newcomer is held against."""
    reference: int
    order: Ints
    """[M], positions of the arms, those with fewer samples first."""
    below: Ints
    """[M], position of the arm of the same member with the next fewer samples; -1: there is none."""
    sure: bool = True
    """Whether the reference's score is 1; else it is 1 less the best arm's."""

    def scores(self, x: Floats) -> Floats:
        scores = self.head.scores(x)
        scores[:, self.reference] = 0.0
        for arm in self.order:
            if self.below[arm] >= 0 and arm != self.reference:
                scores[:, arm] = np.maximum(scores[:, arm], scores[:, self.below[arm]])
        scores[:, self.reference] = 1.0 if self.sure else 1 - scores.max(axis=1)
        return np.asarray(scores)

    def widen(self, x: Floats, quality: Floats) -> Match:
        """One arm more, of one sample: it matches where it is right, or the reference is likely wrong."""
        if not self.sure:
            raise NeedsFit(
                "the score says which of two members is to answer, and there is no place for a third",
                instead="fit best_route, which does the same for more",
            )
        matched = 1 - self.head.scores(x)[:, self.reference] * (1 - quality)
        others = np.delete(self.head.weights, self.reference, axis=1)
        column = newcomer.by_odds(others if others.shape[1] else self.head.weights, x, matched)
        return replace(
            self,
            head=replace(self.head, weights=np.column_stack([self.head.weights, column])),
            order=np.append(self.order, len(self.order)),
            below=np.append(self.below, -1),
        )

    @classmethod
    def fit(
        cls,
        x: Floats,
        labels: Floats,
        reference: int,
        chains: Sequence[Sequence[int]] = (),
        *,
        right: Floats | None = None,
        penalty: float | None = None,
        sure: bool = True,
        seed: int = 0,
    ) -> Match:
        """
        Args:
            x: [n, d], unit rows.
            labels: [n, M] in [0, 1], probabilities of a match; NaN where nothing is known.
            reference: a position; its labels are not read.
            chains: positions of the arms of one member, fewest samples first.
            right: [n], quality of the reference; omitted: a newcomer is held against one that is always right.
            penalty: ``None``: of those there are, the one with the least cross-entropy on held-out rows.
        """
        penalty = _penalty(x, labels, seed) if penalty is None else penalty
        if right is not None:
            labels = labels.copy()
            labels[:, reference] = right
        below = np.full(labels.shape[1], -1)
        for chain in chains:
            below[list(chain[1:])] = chain[:-1]
        alone = [arm for arm in range(labels.shape[1]) if all(arm not in chain for chain in chains)]
        order = np.array([*alone, *(arm for chain in chains for arm in chain)])
        return cls(Logistic.fit(x, labels, penalty), reference, order, below, sure)


def _penalty(x: Floats, labels: Floats, seed: int) -> float:
    """The penalty with the least cross-entropy on a fifth of the rows, held out; the largest of equals."""
    order = np.random.default_rng([seed, 37]).permutation(len(x))
    held, kept = order[: len(x) // 5], order[len(x) // 5 :]
    if not len(held):
        return 1.0

    def lost(penalty: float) -> float:
        scores = np.clip(sigmoid(Logistic.fit(x[kept], labels[kept], penalty).logits(x[held])), 1e-6, 1 - 1e-6)
        return -float(np.nansum(labels[held] * np.log(scores) + (1 - labels[held]) * np.log(1 - scores)))

    return min(reversed(PENALTIES), key=lost)
