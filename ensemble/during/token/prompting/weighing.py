"""Weights from what members made of a prompt: by their losses, or so that their mixture has the smallest loss.

Pure functions of what was read; nothing here knows how it was read, or what the weights are used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensemble.distributions import log_softmax
from ensemble.during.token.prompting.reading import Reading
from ensemble.member import Floats
from ensemble.vocabulary import NO_CLASS, union_of

_LEAST = float(np.finfo(np.float32).tiny)
"""What a probability of 0 counts as where its logarithm is taken."""


def softmax_weights(losses: Sequence[float], tau: float) -> Floats:
    """Weights by losses, shape [M], summing to 1.

    >>> softmax_weights([0.496259, 0.558370], tau=1.0).round(6).tolist()
    [0.515523, 0.484477]
    """
    return np.asarray(np.exp(log_softmax(-np.array(losses) / tau)))


@dataclass(frozen=True, slots=True)
class Positions:
    """Distributions of M members at T positions, as masses of C entries; every position has a stretch of them."""

    logprobs: Floats
    """Shape [M, C], natural logarithm; each stretch sums to 1 at each member."""
    starts: npt.NDArray[np.int64]
    """Shape [T]: where each stretch begins."""
    labels: Floats
    """Shape [M, T]: log-probability of the token that stands there."""

    def loss(self, weights: Floats) -> float:
        """Mean nats for each position of Π pᵢ^wᵢ, normalised; ``weights``: shape [M]."""
        mixed = weights @ self.logprobs
        lengths = np.diff(self.starts, append=len(mixed))
        tops = np.maximum.reduceat(mixed, self.starts)
        sums = np.add.reduceat(np.exp(mixed - np.repeat(tops, lengths)), self.starts)
        return float((tops + np.log(sums) - weights @ self.labels).mean())


def positions(readings: Sequence[Reading]) -> Positions | None:
    """What all members say where all have the same token next; ``None`` if there is no such place.

    Classes of equal bytes that any list names are entries of a position, and all others together are one. A class that
    a member has ids for and has not listed gets the mass of the last one listed, or an equal part of the tail if that
    is less. So the members' own losses are exact, and so is everything where lists are complete; else the losses of
    mixtures are estimates, off by what little mass is not listed.
    """
    places = _places(readings)
    if not len(places[0]):
        return None
    union = union_of([reading.vocabulary for reading in readings])
    told = [_told(reading, place) for reading, place in zip(readings, places, strict=True)]
    keys = [
        np.arange(len(place))[:, None] * (union.size + 1) + (union.classes[i][ids] - NO_CLASS)
        for i, (place, (ids, _)) in enumerate(zip(places, told, strict=True))
    ]
    entries, columns = np.unique(np.concatenate([k.ravel() for k in keys]), return_inverse=True)
    cells = np.split(columns, np.cumsum([k.size for k in keys])[:-1])
    stretches = entries // (union.size + 1)
    named = entries % (union.size + 1)
    rows = [
        _spread(cell, masses, stretches, np.isin(named, own - NO_CLASS))
        for cell, (_, masses), own in zip(cells, told, union.classes, strict=True)
    ]
    label = np.stack([cell.reshape(k.shape)[:, -1] for cell, k in zip(cells, keys, strict=True)])
    known = np.stack([row for row, _ in rows])
    rest = np.stack([rest for _, rest in rows])
    ends = np.flatnonzero(np.diff(stretches, append=len(places[0]))) + 1
    starts = np.concatenate([[0], ends[:-1]]) + np.arange(len(ends))
    logprobs = np.log(np.maximum(np.insert(known, ends, rest, axis=1), _LEAST))
    labels = np.log(np.maximum(np.take_along_axis(known, label, axis=1), _LEAST))
    return Positions(logprobs, starts, labels)


def _places(readings: Sequence[Reading]) -> list[npt.NDArray[np.int64]]:
    """Per member, shape [T]: its tokens that begin and end where one of every other member's does."""
    spans = [
        {span: i for i, span in enumerate(zip(r.ends[:-1].tolist(), r.ends[1:].tolist(), strict=True))}
        for r in readings
    ]
    shared = sorted(set.intersection(*(set(own) for own in spans)))
    return [np.array([own[span] for span in shared], np.int64) for own in spans]


def _told(reading: Reading, place: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Floats]:
    """Ids listed at these tokens and their masses, shape [T, K + 1]; the token itself is the last, with its mass if
    the list does not have it."""
    listed = [reading.scored.distributions[i] for i in place.tolist()]
    ids = np.stack([d.ids for d in listed]).astype(np.int64)
    masses = np.exp(np.stack([d.logprobs for d in listed]).astype(np.float64))
    token = np.array(reading.scored.ids, np.int64)[place][:, None]
    own = np.exp(reading.scored.logprobs.astype(np.float64))[place][:, None]
    missing = ~(ids == token).any(axis=1, keepdims=True)
    return np.concatenate([ids, token], axis=1), np.concatenate([masses, np.where(missing, own, 0.0)], axis=1)


def _spread(
    cells: npt.NDArray[np.int64], masses: Floats, stretches: npt.NDArray[np.int64], spelt: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """A member's masses of all entries, shape [C], and the rest at each position, shape [T].

    Args:
        cells: shape [T · (K + 1)], the entry of each id that it has told of.
        masses: shape [T, K + 1], of these ids, likeliest first but for the last.
        stretches: shape [C], the position of each entry.
        spelt: shape [C], whether it has ids for the entry at all.
    """
    size, places = len(stretches), len(masses)
    known = np.bincount(cells, masses.ravel(), size)
    unknown = spelt & (np.bincount(cells, minlength=size) == 0)
    tails = np.maximum(0.0, 1.0 - masses.sum(axis=1))
    missing = np.bincount(stretches[unknown], minlength=places)
    each = np.minimum(masses[:, -2], tails / np.maximum(missing, 1))
    return np.where(unknown, each[stretches], known), np.maximum(0.0, tails - missing * each)


def fitted_weights(where: Positions, losses: Sequence[float], step: float) -> Floats:
    """Weights, shape [M], that make the loss of the mixture small: members join one by one, the best first, each with
    the weight on the grid 0, step, 2·step … 1 that is best then; the first of equal ones.

    Args:
        losses: of each member; they only say who joins when.
    """
    order = np.argsort(losses, kind="stable")
    weights = np.zeros(len(losses))
    weights[order[0]] = 1.0
    grid = np.linspace(0.0, 1.0, round(1 / step) + 1)
    for joining in order[1:]:
        new = np.zeros(len(losses))
        new[joining] = 1.0
        mixes = [share * weights + (1 - share) * new for share in grid]
        weights = mixes[int(np.argmin([where.loss(mix) for mix in mixes]))]
    return weights
