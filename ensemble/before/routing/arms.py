"""What a router chooses between: a member, with what is put before the question, and how many answers it gives.

A router's columns are names of members, or ``member|strategy``, or ``member@n``. Knows nothing of predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ensemble.errors import ConfigurationError
from ensemble.request import Request


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to have a question answered."""

    name: str
    """As the router knows it."""
    column: int
    """Of the router."""
    seat: int
    """Of the member that answers."""
    before: str = ""
    """Text that is put before the question."""
    samples: int = 1
    """Answers that it gives, of which the commonest counts."""

    def asked(self, request: Request) -> Request:
        """The request as this arm's member gets it."""
        if not self.before:
            return request
        if request.prompt is not None:
            return replace(request, prompt=self.before + request.prompt)
        messages = list(request.messages)
        last = max(i for i, message in enumerate(messages) if message.role == "user")
        messages[last] = replace(messages[last], content=self.before + messages[last].content)
        return replace(request, messages=tuple(messages))


def arms(
    columns: Sequence[str], members: Sequence[str], strategies: Mapping[str, str], names: Mapping[str, str]
) -> tuple[Arm, ...]:
    """Those columns of a router that these members can serve; columns of others are left out.

    >>> [arm.seat for arm in arms(["a", "b|short", "c"], ["b", "a"], {"short": "Be brief. "}, {})]
    [1, 0]

    Args:
        strategies: text that is put before the question, by strategy.
        names: of the member that serves a column, where it has another name than the column says.

    Raises:
        ConfigurationError: a column of a member names a strategy that there is not.
    """
    seats = {name: seat for seat, name in reversed(list(enumerate(members)))}
    found = []
    for column, name in enumerate(columns):
        base, before, samples = (name, "", 1) if name in seats or name in names else _parted(name)
        seat = seats.get(names.get(name, names.get(base, base)))
        if seat is None:
            continue
        if before and before not in strategies:
            rule = f"the router was fitted to the strategy {before!r} of {base}; strategies has"
            raise ConfigurationError(f"{rule}: {', '.join(sorted(strategies)) or 'none'}", param="strategies")
        found.append(Arm(name, column, seat, strategies.get(before, ""), samples))
    return tuple(found)


def _parted(name: str) -> tuple[str, str, int]:
    """Member, strategy and number of answers of a column's name.

    >>> _parted("a|short"), _parted("a@4"), _parted("a")
    (('a', 'short', 1), ('a', '', 4), ('a', '', 1))
    """
    base, _, strategy = name.partition("|")
    member, _, count = base.rpartition("@")
    return (member, strategy, int(count)) if member and count.isdecimal() and int(count) else (base, strategy, 1)


def require_arms(found: Sequence[Arm], members: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse members that the router was not fitted to.

    Raises:
        ConfigurationError: naming them.
    """
    served = {arm.seat for arm in found}
    if strangers := [name for seat, name in enumerate(members) if seat not in served and name not in members[:seat]]:
        rule = f"the router knows nothing of {', '.join(strangers)}; it was fitted to: {', '.join(columns)}"
        raise ConfigurationError(f"{rule}; arms says by which name a router knows a member", param="members")
