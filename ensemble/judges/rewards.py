"""From the rewards of a solution's steps to the reward of the solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Reduction = Literal["last", "mean", "min", "product"]
"""The last step's reward, or mean, minimum or product over all steps."""

_REDUCTIONS: Mapping[Reduction, Callable[[Sequence[float]], float]] = {
    "last": lambda rewards: rewards[-1],
    "mean": lambda rewards: math.fsum(rewards) / len(rewards),
    "min": min,
    "product": math.prod,
}


def reduced(rewards: Sequence[float], by: Reduction) -> float:
    """The reward of a solution of at least one step.

    >>> [reduced([0.5, 1.0, 0.75], by) for by in ("last", "mean", "min", "product")]
    [0.75, 0.75, 0.5, 0.375]
    """
    return _REDUCTIONS[by](rewards)
