"""Linear heads: a member does on a query as a weighted sum of the embedding says.

Three links: none (ridge regression), logistic (one head for each member), softmax (members share one unit). How the
weights are found is the business of ``solvers.convex``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from ensemble.before.heads.head import Head, Outcome
from ensemble.before.routing.parts import NeedsFit
from ensemble.before.solvers import convex, newcomer
from ensemble.outcomes.dense import Floats

_LEVELLED = 10.0
"""Penalty of the regression that says what a newcomer is held against; of rows of unit length."""
_FEW = 5
"""Rows that are too few to hold some out."""
RATE = 0.05
"""Of online steps: part of the error that is corrected, where rows are of unit length."""


@dataclass
class Linear(Head):
    """What linear heads share."""

    weights: Floats
    """[d + 1, M]; the last row is the constant."""
    rate: float = RATE
    """Size of online steps; 0: none."""

    def logits(self, x: Floats) -> Floats:
        """[n, M], before the link."""
        return np.asarray(x @ self.weights[:-1] + self.weights[-1])

    def _step(self, x: Floats, error: Floats | float, columns: int | slice) -> None:
        """Move some members' weights against the error of their scores."""
        self.weights = self.weights.copy()
        self.weights[:, columns] += self.rate * np.multiply.outer(np.append(x, 1.0), error)


@dataclass
class Ridge(Linear, kind="ridge"):
    """Least squares with a penalty. Scores are not held to [0, 1]: that would make the best ones equal."""

    noise: Floats | None = None
    """[M], standard deviation of one outcome, times √(queries ÷ those at which the member was observed)."""
    cover: Floats | None = None
    """[d + 1, d + 1], inverse of all queries' [x, 1]ᵀ[x, 1] + penalty · I; ``None``: the spread is not known."""

    learns: ClassVar[bool] = True

    @classmethod
    def fit(cls, x: Floats, target: Floats, penalty: float = 1.0, *, rate: float = RATE, spread: bool = False) -> Ridge:
        """
        Args:
            x: [n, d].
            target: [n, M], NaN where not observed; a member without any observation scores 0.
            penalty: above 0; of Σ error² + penalty · |w|², where the constant is free.
            spread: whether the head is to know how sure it is, for d² more numbers.
        """
        (weights,) = convex.ridge(x, target, [penalty])
        head = cls(weights, rate)
        return replace(head, noise=_noise(head, x, target), cover=_cover(x, penalty)) if spread else head

    @classmethod
    def tuned(cls, x: Floats, target: Floats, penalties: Sequence[float], seed: int = 0) -> float:
        """The largest penalty whose choices are about the best on a fifth of the rows, held out; of few rows, the
        largest.

        About the best: worse by no more than one standard error. The least squared error would ask for less penalty,
        and the head would tell members apart by what they have no part in.
        """
        if len(x) < _FEW:
            return max(penalties)
        order = np.random.default_rng([seed, 11]).permutation(len(x))
        held, kept = np.sort(order[: len(order) // 5]), np.sort(order[len(order) // 5 :])
        if not len(held):
            return max(penalties)
        quality = np.nan_to_num(target[held])
        picks = [cls(w).logits(x[held]).argmax(axis=1) for w in convex.ridge(x[kept], target[kept], penalties)]
        reached = np.stack([quality[np.arange(len(held)), pick] for pick in picks])
        lost = reached[reached.mean(axis=1).argmax()] - reached
        near = lost.mean(axis=1) <= lost.std(axis=1) / np.sqrt(len(held))
        return max(penalty for penalty, good in zip(penalties, near, strict=True) if good)

    def scores(self, x: Floats) -> Floats:
        return self.logits(x)

    def spread(self, x: Floats) -> Floats | None:
        """As if every member had been observed at a like sample of the queries."""
        if self.cover is None or self.noise is None:
            return None
        rows = np.pad(x, ((0, 0), (0, 1)), constant_values=1.0)
        away = np.einsum("nd,de,ne->n", rows, self.cover, rows, optimize=True)
        return np.asarray(np.sqrt(np.maximum(away, 0))[:, None] * self.noise)

    def learn(self, outcome: Outcome) -> None:
        """One step of least mean squares on that member's output; no other one's scores change."""
        score = self.logits(outcome.x[None])[0, outcome.member]
        # Halved: the row with its constant has length √2.
        self._step(outcome.x, (outcome.quality - score) / 2, outcome.member)

    def widen(self, x: Floats, quality: Floats) -> Ridge:
        """The likeliest weights given the outcomes and how the known members' weights are spread."""
        noise = None if self.noise is None else np.append(self.noise, self.noise.max())
        weights = np.column_stack([self.weights, newcomer.by_squares(self.weights, x, quality)])
        return replace(self, weights=weights, noise=noise)


@dataclass
class Logistic(Linear, kind="logistic"):
    """One logistic regression for each member."""

    learns: ClassVar[bool] = True

    @classmethod
    def fit(
        cls, x: Floats, target: Floats, penalty: float = 1.0, *, weight: Floats | None = None, rate: float = RATE
    ) -> Logistic:
        """
        Args:
            x: [n, d].
            target: [n, M] in [0, 1], NaN where not observed; fractions are probabilities of being right.
            penalty: of cross entropy + penalty ÷ 2 · |w|², where the constant is free.
            weight: [n, M], what each cell counts; omitted: 1.
        """
        weight = np.ones(target.shape) if weight is None else weight
        start = np.zeros((x.shape[1] + 1, target.shape[1]))
        return cls(convex.logistic(x, target, penalty, weight, start), rate)

    def scores(self, x: Floats) -> Floats:
        return convex.sigmoid(self.logits(x))

    def learn(self, outcome: Outcome) -> None:
        """One step down the gradient of that member's cross entropy; no other one's scores change."""
        score = self.scores(outcome.x[None])[0, outcome.member]
        # A logit moves a score by a quarter at most: four times the error, halved as the row has length √2.
        self._step(outcome.x, 2 * (outcome.quality - score), outcome.member)

    def widen(self, x: Floats, quality: Floats) -> Logistic:
        """The likeliest weights given the outcomes and how the known members' weights are spread."""
        return replace(self, weights=np.column_stack([self.weights, newcomer.by_odds(self.weights, x, quality)]))


@dataclass
class Softmax(Linear, kind="softmax"):
    """Members share one unit of probability: a score says who is the one to ask, not how well that one will do."""

    level: Floats | None = None
    """[d + 1], foretells log Σ e^(quality ÷ temperature) over the members of the fit: what a newcomer is held against;
    ``None``: not known."""
    temperature: float = 0.0
    """Of labels that were made of qualities."""

    probabilities: ClassVar[bool] = False

    @classmethod
    def fit(cls, x: Floats, label: Floats, penalty: float = 1.0, *, rate: float = RATE) -> Softmax:
        """
        Args:
            x: [n, d].
            label: [n, M], rows sum to 1 over the observed members; NaN for the others, whom the row then says nothing
                of. A row of NaN does not count.
            penalty: of cross entropy + penalty ÷ 2 · |w|², where the constant is free.
        """
        return cls(convex.softmax(x, label, penalty, np.zeros((x.shape[1] + 1, label.shape[1]))), rate)

    def scores(self, x: Floats) -> Floats:
        return convex.shared(self.logits(x))

    def over(self, x: Floats, quality: Floats, temperature: float) -> Self:
        """The same head, which knows what labels ``targets.labels.soft`` has made of, and so can take a newcomer.

        Args:
            quality: [n, M], NaN where not observed.
            temperature: of the labels, above 0.
        """
        seen = ~np.isnan(quality)
        some = seen.any(axis=1)
        raised = np.where(seen, quality / temperature, -np.inf)[some]
        # As if everybody had been observed who is there now.
        everybody = np.log(quality.shape[1] / seen[some].sum(axis=1))
        level = np.logaddexp.reduce(raised, axis=1) + everybody
        (weights,) = convex.ridge(x[some], level[:, None], [_LEVELLED])
        return replace(self, level=weights[:, 0], temperature=temperature)

    def widen(self, x: Floats, quality: Floats) -> Self:
        """The newcomer's share is what its qualities would have made it at these queries; the others' shares keep their
        proportions."""
        if self.level is None:
            raise NeedsFit("shares were fitted to labels that name the best of each query and tell no qualities")
        level = x @ self.level[:-1] + self.level[-1]
        return self.joined(x, convex.sigmoid(quality / self.temperature - level))

    def joined(self, x: Floats, share: Floats) -> Self:
        """With one more member, last, of whom shares [k] are known at some queries [k, d]."""
        others = np.logaddexp.reduce(self.logits(x), axis=1)
        return replace(self, weights=np.column_stack([self.weights, newcomer.by_odds(self.weights, x, share, -others)]))

    def follow(self, x: Floats, label: Floats) -> Self:
        """One step towards a label [M] that sums to 1, at once."""
        self._step(x, label - self.scores(x[None])[0], slice(None))
        return self


def _noise(head: Ridge, x: Floats, target: Floats) -> Floats:
    seen = ~np.isnan(target)
    count = np.maximum(seen.sum(axis=0), 1)
    errors = np.where(seen, target - head.logits(x), 0.0)
    return np.asarray(np.sqrt((errors**2).sum(axis=0) / count * len(x) / count))


def _cover(x: Floats, penalty: float) -> Floats:
    return convex.cover(x, penalty).astype(np.float32)
