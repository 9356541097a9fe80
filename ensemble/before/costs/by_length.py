"""Costs by the length that an answer will have, foretold by a small network on the query and the member's parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.before.costs.cost import Costs
from ensemble.before.heads.network import Layers, values
from ensemble.before.routing.parts import NeedsFit
from ensemble.outcomes.dense import Floats

_NEVER = -1e9
"""Shift of a hidden unit that is to stay silent."""


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

    money: bool = True
    """Whether prices are money; else costs are lengths in some unit."""

    @classmethod
    def of_layers(cls, layers: Layers, prices: Floats, most: Floats, money: bool) -> LengthCosts:
        """
        Args:
            layers: fitted to ln(1 + tokens): of plain counts the longest answers alone would count.
        """
        return cls(layers.vectors, layers.hidden, layers.out, prices, most, money)

    def lengths(self, x: Floats) -> Floats:
        """[n, M], tokens that answers will have."""
        logs = values(x, Layers(self.vectors, self.hidden, self.out))
        return np.asarray(np.minimum(np.expm1(np.clip(logs, 0, 30)), self.most))

    def of(self, x: Floats, tokens: Floats) -> Floats:
        return np.asarray(tokens[:, None] * self.prices[:, 0] + self.lengths(x) * self.prices[:, 1])

    def widen(self, cost: float) -> LengthCosts:
        """The new member writes one token at the mean cost, whatever is asked: no length of its answers is known."""
        if not self.money:
            raise NeedsFit("costs that are lengths take no member without a fit: money says no length")
        one = np.append(np.full(len(self.out), _NEVER), np.log1p(1.0))
        return LengthCosts(
            np.vstack([self.vectors, one]),
            self.hidden,
            self.out,
            np.vstack([self.prices, [0.0, np.nan_to_num(cost)]]),
            np.append(self.most, 1.0),
        )


def longest(tokens: Floats) -> Floats:
    """[M], of lengths [n, M], NaN where not known."""
    return np.asarray(np.where(np.isnan(tokens), 0.0, tokens).max(axis=0))
