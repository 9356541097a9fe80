"""Calibration on queries that the head was not fitted to: a head's own queries flatter it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from ensemble.before.calibration import Calibration
from ensemble.before.calibrations.isotonic import Isotonic
from ensemble.before.calibrations.platt import Platt
from ensemble.before.heads.head import Head
from ensemble.before.training import Training
from ensemble.outcomes.dense import Floats

Kind = Literal["none", "platt", "isotonic"]
"""How scores become expected quality."""

_FOLDS = 5


def calibrated(kind: Kind, build: Callable[[Training], Head], training: Training) -> tuple[Head, Calibration | None]:
    """A head fitted to all queries, and a calibration of its like: fitted to four fifths, scored on the last, in turn.

    Args:
        build: fits a head; it must not depend on how many queries there are.
    """
    head = build(training)
    if kind == "none" or len(training.x) < _FOLDS:
        return head, None
    scores = _outside(build, training)
    if kind == "platt":
        return head, Platt.fit(scores, training.table.quality, logit=head.probabilities)
    return head, Isotonic.fit(scores, training.table.quality)


def _outside(build: Callable[[Training], Head], training: Training) -> Floats:
    """[n, M], scores of each query by a head that has not seen it."""
    fold = np.random.default_rng([training.seed, 13]).permutation(len(training.x)) % _FOLDS
    scores = np.zeros(training.table.quality.shape)
    for turn in range(_FOLDS):
        scores[fold == turn] = build(training.rows(fold != turn)).scores(training.x[fold == turn])
    return scores
