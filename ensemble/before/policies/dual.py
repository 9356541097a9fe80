"""A budget that is kept over time, without knowing what will be asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ensemble.before.policies.utility import Utility


@dataclass(frozen=True, slots=True, kw_only=True)
class DualPrice:
    """The price of money, moved after each answer so that the mean cost comes to the budget; a value.

    Dual ascent: price ← max(0, price + rate × (cost - budget)). The online form of ``assign`` (FORC, arXiv 2308.06077).

    >>> DualPrice(budget=0.01, rate=10.0).after(0.05).price
    0.4
    """

    budget: float
    """Money for a query, on average."""
    rate: float
    """By how much the price moves for a unit of money spent too much; quality for money²."""
    price: float = 0.0
    """Quality that a unit of money is worth."""

    def after(self, cost: float) -> DualPrice:
        """What holds after an answer of this cost."""
        return replace(self, price=max(0.0, self.price + self.rate * (cost - self.budget)))

    @property
    def policy(self) -> Utility:
        """That decides at this price."""
        return Utility(price=self.price)
