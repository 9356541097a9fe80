"""Weights of members that are averaged: how they are written in options, checked and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from ensemble.errors import ConfigurationError
from ensemble.member import Card

Weights = Literal["average"] | tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
"""``"average"``: all equal. Or one number for each member in the configured order, of any sum; a member with 0 is never
called."""


def check_weights(weights: Weights, members: Sequence[Card]) -> None:
    """Refuse weights that do not fit the members.

    Raises:
        ConfigurationError: a wrong number of weights, or none above 0.
    """
    if weights == "average":
        return
    if len(weights) != len(members):
        names = ", ".join(card.name for card in members)
        rule = f"needs one number for each of the {len(members)} members ({names})"
        raise ConfigurationError(f"weights {rule}; it has {len(weights)}", param="weights")
    if not any(weights):
        raise ConfigurationError("weights must hold at least one number above 0", param="weights")


def shares(weights: Weights, members: int) -> dict[int, float]:
    """Weights by seat, summing to 1; seats without weight are left out.

    >>> shares((3, 0, 1), members=3)
    {0: 0.75, 2: 0.25}
    """
    numbers = (1.0,) * members if weights == "average" else weights
    whole = sum(numbers)
    return {seat: number / whole for seat, number in enumerate(numbers) if number > 0}
