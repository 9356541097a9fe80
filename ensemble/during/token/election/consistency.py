"""How consistent members are with one another, token by token, and what their masses come to when that counts.

Pure functions over masses of classes that members have been brought to; nothing here knows how, or what is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ensemble.member import Floats

Similarity = Literal["rbf", "linear", "power", "reciprocal"]
Task = Literal["generative", "choice"]

SHARPNESS = {"rbf": 2.0, "power": 5.0, "reciprocal": 1.0}
"""Of similarities that have one, in published code."""
_LEAST_ENTROPY = 1e-12
"""Nats; as in published code, a member that is sure has a score that is large, not infinite."""

_ROUNDING = 1e-6
"""Masses made of float32 log-probabilities deviate by so much where members are equal."""


@dataclass(frozen=True, slots=True)
class Consistent:
    """What members' masses come to. M members, C classes."""

    weights: Floats
    """Shape [M], sums to 1."""
    scores: Floats
    """Shape [M, C]: how much each mass counts; over those of a member that count at all, the mean is 1."""
    parts: Floats
    """Shape [M, C]: masses of the main member as they are, those of others by their scores."""

    @property
    def mean(self) -> Floats:
        """Shape [C]: weighted sum of the parts; sums to 1 at most up to what the scores add."""
        return np.asarray(self.weights @ self.parts)


def similarity(deviations: Floats, kind: Similarity, sharpness: float) -> Floats:
    """1 where nothing deviates, less where more does.

    Args:
        deviations: shape [M, C], between 0 and 1.
        sharpness: of ``linear`` none is asked. ``reciprocal`` is scaled so that the largest deviation here has 0.

    >>> similarity(np.array([[0.0, 0.25, 1.0]]), "rbf", 2.0).round(6).tolist()
    [[1.0, 0.544946, 0.0]]
    """
    if kind == "linear":
        return np.asarray(1 - deviations)
    if kind == "power":
        return np.asarray((1 - deviations) ** sharpness)
    if kind == "rbf":
        # expm1 keeps the small differences of a small sharpness.
        return np.asarray(1 - np.expm1(-sharpness * deviations) / np.expm1(-sharpness))
    largest = float(deviations.max())
    if largest <= _ROUNDING:
        return np.ones_like(deviations)
    # 1/(1 + sharpness·d), scaled, without its difference of nearly equal numbers.
    return np.asarray((1 - deviations / largest) / (1 + sharpness * deviations))


def consistent(masses: Floats, main: int, kind: Similarity, sharpness: float, task: Task) -> Consistent:
    """Down-weight what deviates from the mean, and members that are unsure or deviate.

    Args:
        masses: shape [M, C], each row sums to 1 at most, to 0 for a member that has nothing to say.
        main: the row whose weight is at least that of all others together; it sums to 1.

    >>> rows = np.array([[0.6, 0.3, 0.1, 0], [0.2, 0.7, 0.1, 0], [0.1, 0.1, 0.1, 0.7]])
    >>> consistent(rows, 0, "rbf", 2.0, "generative").mean.round(6).tolist()
    [0.379547, 0.277262, 0.124417, 0.082662]
    """
    possible = masses + masses[main] > 0
    scores = np.where(possible, similarity(np.abs(masses - masses.mean(axis=0)), kind, sharpness), 0.0)
    sums = scores.sum(axis=1)
    trust = (sums if task == "generative" else 1.0) / np.maximum(_entropies(masses), _LEAST_ENTROPY)
    trust = np.where(masses.any(axis=1), trust, 0.0)
    trust[main] = max(trust[main], trust.sum() - trust[main])
    if not trust[main]:
        trust[main] = 1.0  # every mass deviates by the most there is, which tells nobody apart
    scores = scores * (np.count_nonzero(scores, axis=1) / np.where(sums > 0, sums, 1.0))[:, None]
    parts = masses * scores if task == "generative" else masses.copy()
    parts[main] = masses[main]
    return Consistent(trust / trust.sum(), scores, parts)


def _entropies(masses: Floats) -> Floats:
    """Shape [M], nats, of the rows brought to a sum of 1."""
    sums = masses.sum(axis=1, keepdims=True)
    masses = masses / np.where(sums > 0, sums, 1.0)
    return -np.asarray((masses * np.log(np.where(masses > 0, masses, 1.0))).sum(axis=1))
