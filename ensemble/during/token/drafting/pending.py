"""The queue of drafts behind what is decided, and what each seat has said at these positions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from ensemble.during.token.drafting.drafts import Draft
from ensemble.member import Distribution


class Pending:
    """Drafts in order, and by seat the distributions at the first of their positions, perhaps at the one after too.

    >>> import numpy as np
    >>> row = Distribution(np.array([0]), np.array([0.0]), 1)
    >>> pending = Pending([0, 1])
    >>> pending.drafted([Draft(7, 0, None)], [row]); pending.behind, pending.complete
    ([1], False)
    >>> pending.said(1, [row, row]); pending.complete, pending.pop(), pending.behind
    (True, Draft(id=7, seat=0, chances=None), [])
    """

    def __init__(self, seats: Sequence[int]) -> None:
        """
        Args:
            seats: whose distributions decide.
        """
        self._drafts: deque[Draft] = deque()
        self._rows: dict[int, deque[Distribution]] = {seat: deque() for seat in seats}

    def __len__(self) -> int:
        return len(self._drafts)

    @property
    def first(self) -> Draft:
        return self._drafts[0]

    @property
    def last(self) -> Draft:
        return self._drafts[-1]

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(draft.id for draft in self._drafts)

    @property
    def behind(self) -> list[int]:
        """Seats that have not spoken about every draft."""
        return [seat for seat, rows in self._rows.items() if len(rows) < len(self._drafts)]

    @property
    def complete(self) -> bool:
        """Whether all seats have spoken about the first draft."""
        return bool(self._drafts) and all(self._rows.values())

    @property
    def told(self) -> list[Distribution]:
        """What each seat said about the first draft's position."""
        return [rows[0] for rows in self._rows.values()]

    def known(self, seat: int) -> int:
        """Positions that a seat has spoken about."""
        return len(self._rows[seat])

    def after(self, seat: int) -> Distribution:
        """The last thing that a seat said."""
        return self._rows[seat][-1]

    def add(self, draft: Draft) -> None:
        """A draft at a position that its seat has spoken about already."""
        self._drafts.append(draft)

    def drafted(self, drafts: Sequence[Draft], rows: Sequence[Distribution]) -> None:
        """A block by one seat that had spoken about all drafts so far, with what it said at each position."""
        self._drafts.extend(drafts)
        if drafts and (own := self._rows.get(drafts[0].seat)) is not None:
            missing = len(self._drafts) - len(own)
            own.extend(rows[len(rows) - missing :])

    def said(self, seat: int, rows: Iterable[Distribution]) -> None:
        """What a seat says about the positions after those it has spoken about."""
        self._rows[seat].extend(rows)

    def pop(self) -> Draft:
        """Forget the first position, which is decided."""
        for rows in self._rows.values():
            if rows:
                rows.popleft()
        return self._drafts.popleft()

    def clear(self) -> None:
        self._drafts.clear()
        for rows in self._rows.values():
            rows.clear()
