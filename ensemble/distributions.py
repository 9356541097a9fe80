"""Making distributions out of logits, in numpy; engines on other devices do the same with their own kernels."""

from __future__ import annotations

import numpy as np

from ensemble.member import Distribution, Floats
from ensemble.vocabulary import Ids


def log_softmax(logits: Floats) -> Floats:
    """Shape [..., V] → the same, normalised along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def likeliest(logprobs: Floats, topk: int, hidden: Floats | None = None) -> Distribution:
    """The ``topk`` likeliest tokens (0: all), ties in order of id.

    >>> likeliest(np.log([0.2, 0.5, 0.3]), topk=2).ids.tolist()
    [1, 2]
    """
    size = len(logprobs)
    k = min(topk or size, size)
    order = _descending(logprobs) if k == size else _first(logprobs, k)
    return Distribution(order, logprobs[order], size, hidden)


def _first(values: Floats, count: int) -> Ids:
    least = np.partition(values, -count)[-count]
    candidates = np.flatnonzero(values >= least)
    return candidates[np.argsort(-values[candidates], kind="stable")][:count].astype(np.int32)


def _descending(values: Floats) -> Ids:
    """Places of all values, the largest first, equal ones in their order."""
    if values.dtype != np.float32:
        return np.argsort(-values, kind="stable").astype(np.int32)
    # Sorting numbers takes a twentieth of sorting places by numbers, so each place becomes the lower half of a number
    # whose upper half is in the opposite order of the values: the bits of a negative float are, those of another one
    # are when turned around. Adding 0 leaves one 0 of the two there are.
    bits = (values + np.float32(0)).view(np.uint32)
    upper = np.where(bits >> 31, bits, ~bits & 0x7FFFFFFF).astype(np.uint64) << np.uint64(32)
    numbers = upper | np.arange(len(values), dtype=np.uint64)
    numbers.sort()
    return numbers.astype(np.uint32).view(np.int32)


def entropy(logprobs: Floats) -> float:
    """In nats, of a whole distribution, shape [V].

    >>> round(entropy(np.log([0.5, 0.5])), 6), entropy(np.array([0.0, -np.inf]))
    (0.693147, 0.0)
    """
    possible = logprobs[logprobs > -np.inf].astype(np.float64)
    return float(-(np.exp(possible) * possible).sum()) + 0.0
