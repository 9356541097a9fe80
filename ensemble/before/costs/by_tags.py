"""Costs by tags: an answer costs what answers to queries of its kinds did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.before.costs.cost import Costs, known
from ensemble.before.fitting.training import Training
from ensemble.before.heads.clusters import credited, smooth
from ensemble.before.targets.tags import Tagger
from ensemble.outcomes.dense import Floats


@dataclass
class TagCosts(Costs, kind="tag-costs"):
    """Each member's mean under each tag, weighted by what the tags count for the query."""

    tagger: Tagger
    means: Floats
    """[K, M], money; 0 where nothing is known."""

    @classmethod
    def of_tags(cls, tagger: Tagger, training: Training, pseudo: float = 0.0) -> TagCosts:
        sums, counts = credited(tagger, training.x, training.table.cost)
        return cls(tagger, smooth(sums, counts, pseudo))

    def of(self, x: Floats, tokens: Floats) -> Floats:
        return self.tagger.weights(x) @ self.means

    def widen(self, cost: float, length: float = float("nan")) -> TagCosts:
        column = np.full((len(self.means), 1), np.nan_to_num(cost))
        return TagCosts(self.tagger, np.hstack([self.means, column]))


def tagged_or_known(tagger: Tagger, training: Training, pseudo: float) -> Costs:
    """By tags where every member's money was recorded, else what the table allows."""
    if np.isnan(training.table.cost).all(axis=0).any():
        return known(training)
    return TagCosts.of_tags(tagger, training, pseudo)
