"""Calibration on queries that the head was not fitted to: a head's own queries flatter it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from ensemble.before.calibrations.calibration import Calibration
from ensemble.before.calibrations.isotonic import Isotonic
from ensemble.before.calibrations.platt import Platt
from ensemble.before.fitting.training import Training
from ensemble.before.heads.head import Head
from ensemble.outcomes.dense import Floats, Ints

Kind = Literal["none", "platt", "isotonic"]
"""How scores become expected quality."""

_FOLDS = 5
_MANY = 20_000
"""Queries from which on one fold is enough to calibrate on."""


def calibrated(
    kind: Kind, build: Callable[[Training], Head], training: Training, truth: Floats | None = None
) -> tuple[Head, Calibration | None]:
    """A head fitted to all queries, and a calibration of its like: fitted to four fifths, scored on the last, in turn.

    Args:
        build: fits a head; it must not depend on how many queries there are.
        truth: [n, M], what scores are to foretell; omitted: the quality.
    """
    truth = training.table.quality if truth is None else truth
    head = build(training)
    if kind == "none" or len(training.x) < _FOLDS:
        return head, None
    rows, scores = _outside(build, training)
    if kind == "platt":
        return head, Platt.fit(scores, truth[rows], logit=head.probabilities)
    return head, Isotonic.fit(scores, truth[rows])


def _outside(build: Callable[[Training], Head], training: Training) -> tuple[Ints, Floats]:
    """Places [k] of queries, and their scores [k, M] by a head that has not seen them."""
    fold = np.random.default_rng([training.seed, 13]).permutation(len(training.x)) % _FOLDS
    places, scores = [], []
    for turn in range(_FOLDS if len(training.x) < _MANY else 1):
        places.append(np.flatnonzero(fold == turn))
        scores.append(build(training.rows(fold != turn)).scores(training.x[places[-1]]))
    return np.concatenate(places), np.concatenate(scores)
