"""Sharpening: which class wins where no class has half of the mean, because members split a word in different ways.

Pure functions over masses of classes of equal bytes; nothing here knows whom they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ensemble.member import Floats

Sharpening = Literal["heur", "geom", "none"]

UNSURE = 0.5
"""A class with this much of the mean wins as it is."""
_PREFIX = 0.1
"""A class with more than this of the mean collects the masses of the classes that begin with it."""
_CANDIDATES = 10


def sharpened(how: Sharpening, strings: Sequence[bytes], masses: Floats, mean: Floats, weights: Sequence[float]) -> int:
    """Column of the class that wins; ties go to the first.

    Args:
        strings: bytes of each of C classes; empty for the stop class.
        masses: shape [M, C], of each class at each member.
        mean: shape [C], their weighted mean.
        weights: of the M members, summing to 1.

    >>> strings = [b"Par", b"Pari", b"Paris", b"the", b"x", b"y"]
    >>> masses = np.array([[0.10, 0, 0.28, 0.35, 0.27, 0], [0.30, 0.05, 0.05, 0.25, 0, 0.35]])
    >>> [strings[sharpened(how, strings, masses, masses.mean(0), [0.5, 0.5])] for how in ("none", "heur", "geom")]
    [b'the', b'Par', b'the']
    """
    best = int(np.argmax(mean))
    if how == "none" or mean[best] >= UNSURE:
        return best
    scores = geometric(masses, weights) if how == "geom" else collected(strings, mean)
    return int(np.argmax(scores)) if scores.any() else best


def geometric(masses: Floats, weights: Sequence[float]) -> Floats:
    """Shape [C]: weighted geometric mean; 0 for a class that some member gives nothing."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.array(weights) @ np.log(masses)))


def collected(strings: Sequence[bytes], mean: Floats) -> Floats:
    """Shape [C]: the mean, where the likeliest classes get the masses of their continuations among the likeliest.

    The lone blank and the stop class collect nothing: they begin nearly everything.
    """
    likely = np.argsort(-mean, kind="stable")[:_CANDIDATES]
    scores = np.array(mean, dtype=np.float64)
    for column in likely[mean[likely] > _PREFIX]:
        if strings[column] not in (b"", b" "):
            longer = [c for c in likely if c != column and strings[c].startswith(strings[column])]
            scores[column] += mean[longer].sum()
    return scores
