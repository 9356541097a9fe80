"""Making distributions out of logits, in numpy; engines on other devices do the same with their own kernels."""

from __future__ import annotations

import numpy as np

from ensemble.member import Distribution, Floats


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
    candidates = np.arange(size) if k == size else np.sort(np.argpartition(-logprobs, k)[:k])
    order = candidates[np.argsort(-logprobs[candidates], kind="stable")]
    return Distribution(order.astype(np.int32), logprobs[order], size, hidden)


def entropy(logprobs: Floats) -> float:
    """In nats, of a whole distribution, shape [V].

    >>> round(entropy(np.log([0.5, 0.5])), 6), entropy(np.array([0.0, -np.inf]))
    (0.693147, 0.0)
    """
    possible = logprobs[logprobs > -np.inf].astype(np.float64)
    return float(-(np.exp(possible) * possible).sum()) + 0.0
