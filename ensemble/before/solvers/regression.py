"""Ridge regressions whose penalty is chosen by what is decided with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.before.fitting.training import Training
from ensemble.before.heads.linear import Ridge
from ensemble.before.solvers import convex
from ensemble.outcomes.dense import Floats

_FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def ridge(training: Training, penalty: float | None = None) -> Ridge:
    """A ridge regression of the quality for each member.

    Args:
        penalty: ``None``: the one that ``chosen`` takes.
    """
    quality = training.table.quality
    penalty = chosen(training.x, quality, seed=training.seed) if penalty is None else penalty
    return Ridge.fit(training.x, quality, penalty)


def chosen(x: Floats, target: Floats, penalties: Sequence[float] = PENALTIES, seed: int = 0) -> float:
    """The penalty whose choices reach most on held-out queries, each held out once; the largest of equals.

    Args:
        x: [n, d].
        target: [n, M], what is predicted and to be reached, NaN where not observed; a choice there reaches 0.
    """
    if len(x) < 2 * _FOLDS:
        return max(penalties)
    fold = np.random.default_rng([seed, 23]).permutation(len(x)) % _FOLDS
    reached = np.zeros(len(penalties))
    for held in (fold == part for part in range(_FOLDS)):
        truth = np.nan_to_num(target[held])
        for place, weights in enumerate(convex.ridge(x[~held], target[~held], penalties)):
            picks = Ridge(weights).scores(x[held]).argmax(axis=1)
            reached[place] += truth[np.arange(len(picks)), picks].sum()
    return max(zip(reached.tolist(), penalties, strict=True))[1]
