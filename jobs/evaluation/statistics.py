"""What a difference on the same questions proves: wins and losses, and a verdict in plain words.

Functions over arrays of right and wrong; knows nothing of models or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from ensemble.outcomes.bootstrap import RESAMPLES, apart

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against another on the same questions; shares, not per cent."""

    difference: float
    """Accuracy of the one less that of the other."""
    low: float
    high: float
    """Ends of the 95 % interval of the difference."""
    won: int
    """Questions that only the one has right."""
    lost: int
    """Questions that only the other has right."""

    @property
    def p(self) -> float:
        """Of McNemar's exact test; see ``sign_test``."""
        return sign_test(self.won, self.lost)

    @property
    def verdict(self) -> str:
        """In words: it wins or loses where the interval leaves 0 out, and ties where it does not; in points.

        >>> Comparison(-0.03, -0.051, -0.009, 4, 10).verdict, Comparison(0.004, -0.012, 0.02, 9, 8).verdict
        ('loses by 3.0 [−5.1, −0.9]', 'tie, +0.4 [−1.2, +2.0]')
        """
        interval = f"[{points(self.low)}, {points(self.high)}]"
        if self.low <= 0 <= self.high:
            return f"tie, {points(self.difference)} {interval}"
        word = "wins" if self.low > 0 else "loses"
        return f"{word} by {100 * abs(self.difference):.1f} {interval}"


def points(share: float) -> str:
    """A share in points, with its sign.

    >>> points(-0.0512), points(0.02), points(-0.0001)
    ('−5.1', '+2.0', '0.0')
    """
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def compared(own: Flags, other: Flags, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """One system's right answers against another's to the same questions.

    Args:
        own, other: shape [questions], in the same order.
        seed: of the resamples.

    Raises:
        ValueError: there are no questions, or not as many of the one as of the other.
    """
    if own.shape != other.shape or not own.size:
        raise ValueError(f"needs the same questions of both, at least one; got {own.size} and {other.size}")
    differences = own.astype(np.float64) - other
    low, high = apart(differences, resamples=resamples, seed=seed)
    won, lost = int((own & ~other).sum()), int((other & ~own).sum())
    return Comparison(float(differences.mean()), low, high, won, lost)


def sign_test(won: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: how likely so uneven a division of won and lost is by tosses of a coin.

    >>> sign_test(0, 5), sign_test(3, 3), sign_test(0, 0)
    (0.0625, 1.0, 1.0)
    """
    tosses = won + lost
    tail: int = sum(comb(tosses, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / (1 << tosses))
