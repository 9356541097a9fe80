"""Routers that ask a member before they decide; that one is no candidate for the answer unless they say so.

Knows nothing of what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ensemble.before.routing.arms import Arm, require_arms
from ensemble.before.routing.method import Routing, RoutingOptions
from ensemble.errors import ConfigurationError
from ensemble.member import Capability, Card, Member
from ensemble.method import Members


class AskingOptions(RoutingOptions):
    """Options of routers that ask a member."""

    asked: str | None = Field(default=None)
    """Name of the member that is asked who should answer; it does not answer itself. Omitted: nobody is asked."""


class Asking(Routing):
    """Base of routers that ask a member."""

    options: AskingOptions
    naming: ClassVar[tuple[str, ...]] = ("fallback", "asked")
    asks_with: ClassVar[Capability] = Capability.GENERATE
    """What the member that is asked must be able to do."""

    def check(self, members: Sequence[Card]) -> None:
        if self.options.asked is not None:
            self._check_asked(members)
        super().check(members)

    def _check_asked(self, members: Sequence[Card]) -> None:
        found = [card for card in members if card.name == self.options.asked]
        if not found:
            names = ", ".join(card.name for card in members)
            raise ConfigurationError(f"asked {self.options.asked!r} is no member; allowed: {names}", param="asked")
        found[0].require(frozenset({self.asks_with}), self.name)
        if self.options.fallback == self.options.asked or len(members) < 2:
            rule = f"{self.options.asked!r} is asked and does not answer; somebody else has to"
            raise ConfigurationError(rule, param="asked")

    def seated(self, members: Members) -> Member | None:
        """The member that is asked; ``None``: nobody is, or it is not there."""
        return next((member for member in members if member.name == self.options.asked), None)

    def _require(self, columns: Sequence[str], names: Sequence[str]) -> tuple[Arm, ...]:
        found = self._arms(columns, names)
        aside = [Arm(name, 0, seat) for seat, name in enumerate(names) if name == self.options.asked]
        require_arms([*found, *aside], names, columns)
        if self.options.policy is not None:
            self.options.policy.check([arm.name for arm in found])
        return found

    def _arms(self, columns: Sequence[str], names: Sequence[str]) -> tuple[Arm, ...]:
        return tuple(arm for arm in super()._arms(columns, names) if names[arm.seat] != self.options.asked)
