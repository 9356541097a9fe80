"""Drawing tokens: a pure function of log-probabilities, sampling parameters and position.

The random number for position t comes from (seed, t) alone, so a draw does not depend on what else runs in the batch,
and drawing again after a rewind gives the same token.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt

from ensemble.member import Floats
from ensemble.request import Sampling

_FEW = 256
"""Tokens that mostly hold the share that ``top_p`` asks for."""


def seeded(sampling: Sampling, offset: int = 0) -> Sampling:
    """The sampling with a seed: its own plus ``offset`` (for the choices of one request), or a fresh one."""
    seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
    return replace(sampling, seed=(seed + offset) % 2**63)


def reseeded(sampling: Sampling, offset: int) -> Sampling:
    """The sampling of what is written after ``offset`` characters by other members than before: seeded from its own
    seed, with random numbers that were not used before."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=Random(f"{sampling.seed}/after {offset}").getrandbits(62))


def processed(logprobs: Floats, sampling: Sampling) -> Floats:
    """Probabilities that a token is drawn from, after temperature, top-k and top-p.

    Args:
        logprobs: shape [V], natural logarithm, ``-inf`` for tokens that may not be drawn; need not be normalised.

    Returns:
        Shape [V], float64, sums to 1. Greedy sampling gives a one-hot vector at the first maximum.
    """
    if sampling.greedy:
        return _one_hot(logprobs)
    behind = logprobs.astype(np.float64) - logprobs.max()
    with np.errstate(over="ignore"):  # at next to no temperature only the likeliest is left
        probabilities = np.exp(behind / sampling.temperature)
    if sampling.top_k or sampling.top_p < 1:
        probabilities = _truncated(probabilities / probabilities.sum(), sampling)
    return np.asarray(probabilities / probabilities.sum())


def draw(logprobs: Floats, sampling: Sampling, position: int) -> int:
    """Index of the token drawn at ``position``; the first maximum when greedy.

    >>> draw(np.log([0.1, 0.9]), Sampling(), position=0)
    1
    """
    if sampling.greedy:
        return int(np.argmax(logprobs))
    return pick(processed(logprobs, sampling), uniform(sampling.seed or 0, position))


def pick(probabilities: Floats, point: float) -> int:
    """Index at which the cumulative probability passes ``point`` in [0, 1)."""
    cumulative = np.cumsum(probabilities)
    index = int(np.searchsorted(cumulative, point * cumulative[-1], side="right"))
    return min(index, int(np.flatnonzero(probabilities)[-1]))


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) that belongs to (seed, position)."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


def _one_hot(logprobs: Floats) -> Floats:
    vector = np.zeros(len(logprobs))
    vector[int(np.argmax(logprobs))] = 1.0
    return vector


def _truncated(probabilities: Floats, sampling: Sampling) -> Floats:
    size = len(probabilities)
    count = min(sampling.top_k or _FEW, size)
    keep = _likeliest(probabilities, count)
    if sampling.top_p < 1:
        # The share is of what those among the first top_k have together, or else of everything.
        whole = probabilities[keep].sum() if sampling.top_k else probabilities.sum()
        while not sampling.top_k and count < size and probabilities[keep].sum() < sampling.top_p * whole:
            count = min(16 * count, size)
            keep = _likeliest(probabilities, count)
        keep = keep[: int(np.searchsorted(np.cumsum(probabilities[keep]) / whole, sampling.top_p)) + 1]
    kept = np.zeros_like(probabilities)
    kept[keep] = probabilities[keep]
    return kept


def _likeliest(probabilities: Floats, count: int) -> npt.NDArray[np.intp]:
    """Indices of the ``count`` largest, in their order, ties in order of index."""
    # Sorting a whole vocabulary takes several times as long as everything else about a draw.
    if count < len(probabilities):
        least = np.partition(probabilities, -count)[-count]
        candidates = np.flatnonzero(probabilities >= least)
    else:
        candidates = np.arange(count)
    return candidates[np.argsort(-probabilities[candidates], kind="stable")][:count]
