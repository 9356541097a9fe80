"""Costs by the length that an answer will have, foretold by a small network on the query and the member's parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.before.costs import Costs
from ensemble.before.heads.descent import Descent
from ensemble.before.heads.network import Layers, regression, values
from ensemble.outcomes.dense import Floats


@dataclass
class LengthCosts(Costs, kind="length-costs"):
    """Tokens read × price + tokens that will be written × price (RTR, arXiv 2505.19435)."""

    vectors: Floats
    """[M, h + 1], each member's shifts and bias."""
    hidden: Floats
    """[d, h]."""
    out: Floats
    """[h]."""
    prices: Floats
    """[M, 2], per token read and written."""
    most: Floats
    """[M], longest answers seen: no prediction is above."""

    @classmethod
    def fit(
        cls,
        x: Floats,
        tokens: Floats,
        prices: Floats,
        members: Sequence[str],
        width: int,
        options: Descent,
        seed: int = 0,
    ) -> LengthCosts:
        """Least squares of ln(1 + tokens): of plain counts the longest answers alone would count.

        Args:
            x: [n, d], unit rows.
            tokens: [n, M], lengths of answers, NaN where not known.
            prices: [M, 2].
            members: names of the columns.
            width: h.
        """
        most = np.nanmax(np.where(np.isnan(tokens), 0.0, tokens), axis=0)
        layers = regression(x, np.log1p(tokens), members, width, options, seed)
        return cls(layers.vectors, layers.hidden, layers.out, prices, most)

    def lengths(self, x: Floats) -> Floats:
        """[n, M], tokens that answers will have."""
        logs = values(x, Layers(self.vectors, self.hidden, self.out))
        return np.asarray(np.minimum(np.expm1(np.clip(logs, 0, 30)), self.most))

    def of(self, x: Floats, tokens: Floats) -> Floats:
        return np.asarray(tokens[:, None] * self.prices[:, 0] + self.lengths(x) * self.prices[:, 1])
