"""Drafts: tokens proposed ahead of a decision, how one is held against it, and how many are worth proposing.

A draft y ~ q at a position whose decision is distributed as r is accepted with probability min(1, r(y)/q(y)); what is
elected instead is drawn from norm(max(r - q, 0)). What comes out is distributed as r, whatever q is. Pure functions and
values; nothing here knows members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import numpy as np
from pydantic import Field

from ensemble.member import Floats
from ensemble.method import Options
from ensemble.sampling import pick

_MEMORY = 0.9
"""How much of an estimate is kept when something new is measured."""
_HOPE = 0.8
"""Acceptance before anything is known."""
_REST = 16
"""Tokens without drafts before drafting is tried again."""
_VERIFIED = 4.0
"""Drafted tokens that a verification takes as long as, where time is not measured."""


class Drafting(Options):
    """How members draft for an ensemble; changes how fast an answer comes, not how it is distributed."""

    lengths: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = None
    """One number for each member: tokens that it drafts in a row, the one that it adds when it verifies included; 1:
    that one alone. The member with the largest (the first of several) opens. A member without weight only drafts if its
    number is above 1, and is not called otherwise. Omitted: 5 for the first that has weight, 1 for the others."""
    adaptive: bool = True
    """Numbers above 1 follow the acceptance of each member's drafts and, at temperature 0, the members' speed. Where
    drafting does not pay nobody drafts for a while."""
    longest: int = Field(default=16, ge=1, le=64)
    """Tokens in a row at most, where lengths are adaptive. Omitted: 16."""
    overlap: bool = False
    """The opening member drafts on while the others verify. Pays off where members have machines of their own."""


class Stream(IntEnum):
    """Random numbers of one request besides those that members draw their tokens with, each independent of the rest."""

    ACCEPT = 1
    CORRECT = 2
    ADD = 3

    def seed(self, seed: int) -> int:
        """The stream's own seed; ``sampling.uniform`` of it and a position is its number there."""
        return int(np.random.SeedSequence([seed, int(self)]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, slots=True)
class Draft:
    """One proposed token."""

    id: int
    seat: int
    """Who proposed it."""
    chances: Floats | None
    """Shape [size]: what it was drawn from; ``None`` where it is the likeliest."""


def acceptance(target: Floats, draft: Floats) -> float:
    """Probability that a token drawn from ``draft`` is accepted.

    >>> acceptance(np.array([0.3, 0.45, 0.25]), np.array([0.5, 0.3, 0.2]))
    0.8
    """
    return float(np.minimum(target, draft).sum())


def residual(target: Floats, draft: Floats) -> Floats:
    """What is elected where a draft was rejected is drawn from this, shape [C].

    >>> residual(np.array([0.3, 0.45, 0.25]), np.array([0.5, 0.3, 0.2])).round(6).tolist()
    [0.0, 0.75, 0.25]
    """
    rest = np.maximum(target - draft, 0.0)
    whole = rest.sum()
    return np.asarray(rest / whole) if whole > 0 else target


def elected(target: Floats, draft: Floats, token: int | None, coin: float, point: float) -> int:
    """Index of what is elected, given a draft.

    Args:
        target: shape [C], the distribution of the decision.
        draft: shape [C], what the token was drawn from; its mass outside of these C is left out.
        token: index of the drafted one; ``None`` if it is none of these C.
        coin, point: independent random numbers in [0, 1).
    """
    if token is not None and coin * draft[token] < target[token]:
        return token
    return pick(residual(target, draft), point)


def expected(accepted: float, length: int) -> float:
    """Tokens that come of ``length`` drafts and the one added to them, each accepted with this probability.

    >>> [round(expected(0.8, n), 3) for n in (0, 1, 4)], expected(1.0, 4)
    ([1.0, 1.8, 3.362], 5.0)
    """
    return length + 1.0 if accepted >= 1 else (1 - accepted ** (length + 1)) / (1 - accepted)


def best_length(accepted: float, draft: float, verify: float, longest: int) -> int:
    """The number of drafts that gives most tokens in a time, the shortest of equal ones; 0: better without.

    Args:
        draft: time for one drafted token.
        verify: time for one verification.

    >>> [best_length(a, draft=1, verify=4, longest=8) for a in (0.1, 0.5, 0.8, 1.0)]
    [0, 1, 3, 8]
    """
    without = 1 / max(draft, verify)
    rates = [expected(accepted, n) / (n * draft + verify) for n in range(1, longest + 1)]
    return int(np.argmax([without, *rates]))


class Pace:
    """How many tokens each seat drafts in a row, from what came of its drafts and what they took."""

    def __init__(self, drafting: Drafting, lengths: Mapping[int, int], *, timed: bool) -> None:
        """
        Args:
            lengths: by seat, to begin with.
            timed: whether measured times count. A drawn text depends on who drafted what, so that only requests that
                draw nothing may depend on them.
        """
        self._drafting = drafting
        self._lengths = dict(lengths)
        self._timed = timed
        self._accepted: dict[int, float] = {}
        self._draft: dict[int, float] = {}
        self._verify: dict[int, float] = {}
        self._rested = 0

    def length(self, seat: int) -> int:
        """Tokens in a row; 0 where drafting does not pay, but for a trial now and then."""
        fixed = self._lengths[seat]
        if fixed == 1 or not self._drafting.adaptive or seat not in self._accepted:
            return fixed
        draft, verify = self._times(seat) or (1.0, _VERIFIED)
        best = best_length(self._accepted[seat], draft, verify, self._drafting.longest)
        self._rested = 0 if best or self._rested == _REST else self._rested + 1
        return best if best or self._rested else 1

    def ahead(self, seat: int) -> int:
        """Tokens to draft while others verify: no more than they have time for, so that they are not kept waiting."""
        length, times = self.length(seat), self._times(seat)
        return length if times is None else min(length, max(1, int(times[1] / times[0])))

    def judged(self, seat: int, accepted: float) -> None:
        """A draft of this seat met a decision; ``accepted``: how likely that was to accept it."""
        self._accepted[seat] = _mixed(self._accepted.get(seat, _HOPE), accepted)

    def drafted(self, seat: int, tokens: int, seconds: float) -> None:
        self._draft[seat] = _mixed(self._draft.get(seat, seconds / tokens), seconds / tokens)

    def verified(self, seat: int, seconds: float) -> None:
        self._verify[seat] = _mixed(self._verify.get(seat, seconds), seconds)

    def _times(self, seat: int) -> tuple[float, float] | None:
        """Seconds for a token of this seat's and for a verification by the others, if they are known."""
        draft = self._draft.get(seat, 0.0)
        verify = max((seconds for other, seconds in self._verify.items() if other != seat), default=0.0)
        return (draft, verify) if self._timed and draft > 0 and verify > 0 else None


def _mixed(old: float, new: float) -> float:
    return _MEMORY * old + (1 - _MEMORY) * new
