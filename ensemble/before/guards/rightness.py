"""How likely a predictor of right answers is right itself, by how far a query is from what it was fitted to.

Estimated without labels of new queries: every task in turn is left out of the fit (Shnitzer et al., arXiv 2309.15789).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ensemble.before.fitting.training import Training
from ensemble.before.guards.distance import Distance, far
from ensemble.before.guards.guard import Guard
from ensemble.before.heads.head import Head
from ensemble.before.routing.parts import Part
from ensemble.before.targets.labels import numbered, right
from ensemble.outcomes.dense import Bools, Floats

_WIDTHS = tuple(0.01 * 2.0**power for power in range(7))
_SAMPLE = 20_000
"""Queries that trust is estimated on at most: each is compared with all others."""
_LEAST = 0.5
"""A predictor that is wrong more often than not is taken to know nothing: it is not turned around."""

Build = Callable[[Training], Head]


@dataclass
class Trust(Part, kind="trust"):
    """Gaussian kernel smoother over tasks: distance of a query → probability that the predictor is right."""

    away: Floats
    """[T], distance of each task from the others."""
    right: Floats
    """[T, M], how often the predictor was right on a task that it was not fitted to."""
    width: float
    """Of the kernel."""

    def at(self, away: Floats) -> Floats:
        """[n, M] at distances [n]; between the least and the greatest of the tasks'."""
        exponent = -0.5 * ((away[:, None] - self.away) / self.width) ** 2
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return np.asarray(weight @ self.right / weight.sum(axis=1, keepdims=True))

    @classmethod
    def fit(
        cls, training: Training, build: Build, threshold: float = 0.5, nearest: int = 19, near: bool = True
    ) -> Trust:
        """
        Args:
            training: with the tasks of the queries; where they are all one, a fifth of the queries is left out.
            build: fits the predictor.
            threshold: from which quality and which score on an answer is right.
            nearest: queries that the distance is a mean over.
            near: whether a fifth of the queries is left out as well, each task a point of its own: else nothing is
                known of queries that are like those of the fit.
        """
        found = [
            (far(out.x, rest.x, nearest).mean(), _hits(build(rest), out, threshold))
            for out, rest in _left_out(training, near)
        ]
        away, hits = np.array([pair[0] for pair in found], float), np.stack([pair[1] for pair in found])
        return cls(away, np.maximum(hits, _LEAST), _width(away, hits))

    def widen(self) -> Trust:
        """The same with one more member, last, trusted as the others are on average."""
        return Trust(self.away, np.column_stack([self.right, self.right.mean(axis=1)]), self.width)


@dataclass
class Rightness(Guard, kind="rightness"):
    """In doubt where the predictor is expected to be right, over all members, less often than a limit."""

    distance: Distance
    trust: Trust
    limit: float

    @classmethod
    def fit(cls, training: Training, build: Build, limit: float = 0.55, threshold: float = 0.5) -> Rightness:
        """
        Args:
            build: fits the predictor, for tasks that are left out in turn.
            limit: 0.5 is as often right as wrong.
        """
        distance = Distance.fit(training.x, seed=training.seed)
        return cls(distance, Trust.fit(training, build, threshold, distance.nearest), limit)

    def doubtful(self, x: Floats) -> Bools:
        return np.asarray(self.trust.at(self.distance.away(x)).mean(axis=1) < self.limit)


def _left_out(training: Training, near: bool) -> list[tuple[Training, Training]]:
    """What is foretold, and from what."""
    if len(training.x) > _SAMPLE:
        order = np.random.default_rng([training.seed, 17]).permutation(len(training.x))
        training = training.rows(np.sort(order[:_SAMPLE]))
    tags, names = numbered(training.table.tasks)
    if len(training.x) == 1:
        return [(training, training)]
    rest, held = training.held_out()
    if len(names) == 1:
        return [(held, rest)]
    far_off = [(training.rows(tags == tag), training.rows(tags != tag)) for tag in range(len(names))]
    if not near:
        return far_off
    tags, _ = numbered(held.table.tasks)
    return [*far_off, *((held.rows(tags == tag), rest) for tag in range(int(tags.max()) + 1))]


def _hits(head: Head, out: Training, threshold: float) -> Floats:
    """[M], how often it was foretold whether an answer is right; ½ where nothing was observed."""
    truth = right(out.table.quality, threshold)
    seen = ~np.isnan(truth)
    same = seen & ((head.scores(out.x) >= threshold) == (truth == 1))
    count = seen.sum(axis=0)
    return np.where(count > 0, same.sum(axis=0) / np.maximum(count, 1), _LEAST)


def _width(away: Floats, hits: Floats) -> float:
    """The width that foretells each task best from the others, the widest of equals."""
    if len(away) < 3:
        return _WIDTHS[-1]

    def wrong(width: float) -> float:
        others = [np.arange(len(away)) != task for task in range(len(away))]
        told = [Trust(away[o], hits[o], width).at(away[~o])[0] for o in others]
        return float(((np.stack(told) - hits) ** 2).sum())

    return min(reversed(_WIDTHS), key=wrong)
