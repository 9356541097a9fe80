"""Heads that a method reads at several members: how they are named in options, and which members must have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from pydantic import Field

from ensemble.errors import ConfigurationError
from ensemble.member import Card, HeadCard
from ensemble.method import Options


class ResidentOptions(Options):
    """Base of options of methods that read one head at each of several members."""

    head: str
    """Name of the head that is read."""
    heads: Mapping[str, str] = Field(default_factory=dict)
    """Names of heads by member, for members whose head is called otherwise than ``head``. Omitted: none is."""

    def head_at(self, member: str) -> str:
        """Name of the head that is read at a member."""
        return self.heads.get(member, self.head)

    def of_some(self, names: Iterable[str]) -> Self:
        """These options where only members of these names are left."""
        left = set(names)
        return self.model_copy(update={"heads": {m: head for m, head in self.heads.items() if m in left}})


def check_heads(
    options: ResidentOptions, members: Sequence[Card], seats: Iterable[int], kind: str, method: str
) -> dict[int, HeadCard]:
    """The heads by seat.

    Raises:
        ConfigurationError: ``heads`` names what is no member.
        MissingCapability: a member has no such head.
    """
    names = [card.name for card in members]
    for name in options.heads:
        if name not in names:
            rule = f"heads names {name!r}, which is no member; members: {', '.join(names)}"
            raise ConfigurationError(rule, param="heads")
    return {seat: members[seat].require_head(options.head_at(names[seat]), kind, method) for seat in seats}


def check_projection(helper: Card, head: str, pivot: Card, method: str) -> None:
    """Refuse a helper that cannot say what it means in the pivot's tokens.

    Raises:
        MissingCapability: it has no such head of kind ``projection``.
        ConfigurationError: the head was fitted for another pivot.
    """
    found = helper.require_head(head, "projection", method)
    if found.space and pivot.vocabulary and found.space != pivot.vocabulary:
        rule = f"head {head!r} of {helper.name} projects into another vocabulary than that of {pivot.name}"
        raise ConfigurationError(f"{rule}; fit it for this pivot", param="pivot")


def check_writer(option: str, name: str | None, shares: Mapping[int, float], members: Sequence[Card]) -> int:
    """Seat of the member in whose vocabulary answers are written; the first where none is named.

    Args:
        option: that names it.
        shares: weights by seat.

    Raises:
        ConfigurationError: it is no member, or has no weight.
    """
    names = [card.name for card in members]
    if name is not None and name not in names:
        raise ConfigurationError(f"{option} {name!r} is no member; members: {', '.join(names)}", param=option)
    seat = writer(name, names)
    if seat not in shares:
        raise ConfigurationError(f"the {option} {names[seat]} writes, so its weight must be above 0", param="weights")
    return seat


def writer(name: str | None, names: Sequence[str]) -> int:
    """Seat of the member of this name; the first for ``None``."""
    return 0 if name is None else names.index(name)
