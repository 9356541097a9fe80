"""Which member plays which part in a method for two."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.errors import ConfigurationError
from ensemble.member import Card


def pair(names: Sequence[str], first: str | None, second: str | None) -> tuple[int, int | None]:
    """Seats of the two parts; ``None`` for the second where there is only one member left.

    Args:
        names: of the members.
        first, second: who plays them; ``None``: the first member that plays no other part.

    >>> pair(["a", "b"], None, None), pair(["a", "b"], None, "a"), pair(["a"], None, None)
    ((0, 1), (1, 0), (0, None))
    """
    one = names.index(first) if first is not None else next(i for i, name in enumerate(names) if name != second)
    rest = [i for i in range(len(names)) if i != one]
    return one, rest[0] if rest else None


def check_pair(
    members: Sequence[Card], option: str, first: str | None, other: str, second: str | None
) -> tuple[int, int]:
    """Refuse anything but two members in two parts.

    Args:
        option, other: names of the options that say who plays them.

    Raises:
        ConfigurationError: naming the option and what is allowed.
    """
    names = [card.name for card in members]
    if len(members) != 2:
        raise ConfigurationError(f"takes two members; there are {len(members)}", param="members")
    for role, name in ((option, first), (other, second)):
        if name is not None and name not in names:
            raise ConfigurationError(f"{role} {name!r} is no member; members: {', '.join(names)}", param=role)
    if first is not None and first == second:
        raise ConfigurationError(f"{option} and {other} are the same member; allowed: one each", param=other)
    one, two = pair(names, first, second)
    assert two is not None
    return one, two
