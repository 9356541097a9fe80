"""Costs by the length that an answer will have, foretold by a small network on the query and the member's parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def widen(self, cost: float, length: float = float("nan")) -> LengthCosts:
        """The new member writes its mean length whatever is asked; of costs that are money, one token at their mean."""
        if not self.money and np.isnan(length):
            raise NeedsFit("costs are lengths of answers, and the table tells no output_tokens of the newcomer")
        length, price = (1.0, np.nan_to_num(cost)) if self.money else (length, self.prices[0, 1])
        one = np.append(np.full(len(self.out), _NEVER), np.log1p(length))
        return replace(
            self,
            vectors=np.vstack([self.vectors, one]),
            prices=np.vstack([self.prices, [0.0, price]]),
            most=np.append(self.most, length),
        )


def longest(tokens: Floats) -> Floats:
    """[M], of lengths [n, M], NaN where not known."""
    return np.asarray(np.where(np.isnan(tokens), 0.0, tokens).max(axis=0))
