"""Warm: a query is drawn to the queries of the past that are most like it before anything is said of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ensemble.before.heads.abilities import Abilities
from ensemble.before.heads.head import Head, Outcome
from ensemble.before.heads.nearest import nearest_rows
from ensemble.outcomes.dense import Floats

_BLOCK = 1024
"""Queries compared with the store at once: bounds memory, not results."""


@dataclass
class Warm(Head, kind="warm"):
    """Reads share × x + (1 - share) × the mean of the k nearest rows in place of x (arXiv 2506.01048)."""

    head: Abilities
    store: Floats
    """[N, d], unit rows: queries of the past."""
    share: float
    k: int

    learns: ClassVar[bool] = True

    def warmed(self, x: Floats) -> Floats:
        """[n, d]."""
        blocks = [self._warmed(x[first : first + _BLOCK]) for first in range(0, len(x), _BLOCK)]
        return np.concatenate(blocks) if blocks else x

    def _warmed(self, x: Floats) -> Floats:
        nearest, _ = nearest_rows(x @ self.store.T, self.k)
        return np.asarray(self.share * x + (1 - self.share) * self.store[nearest].mean(axis=1))

    def scores(self, x: Floats) -> Floats:
        return self.head.scores(self.warmed(x))

    def spread(self, x: Floats) -> Floats:
        return self.head.spread(self.warmed(x))

    def learn(self, outcome: Outcome) -> None:
        self.head.learn(replace(outcome, x=self.warmed(outcome.x[None])[0]))

    def widen(self, x: Floats, quality: Floats) -> Warm:
        return replace(self, head=self.head.widen(self.warmed(x), quality))
