"""Guesses: what a session's next token will be, made while its driver decides.

An idle engine runs ahead: it computes what comes after its own guess of the decision, the likeliest token of the
distribution just sent. Where the decision equals the guess, the next distribution is there already or under way; where
it does not, the pass is abandoned at the next layer, so that committed work waits for a layer at most. Guesses are
never billed: what a session costs does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ensemble.member import Append, Edit

_HOPE = 0.7
"""How likely a guess is taken to come true before anything is known of its session."""
_MEMORY = 0.9
"""How much of that belief is kept with each outcome."""
_WORTH = 0.5
"""Least probability that all guesses of a pass come true at which running ahead pays: a pass in vain costs up to a
layer, a pass that is kept saves a round trip, and both take about as long."""


class Guess:
    """What one session's next token will be, and how far such guesses can be trusted.

    >>> guess = Guess()
    >>> guess.token = 5; guess.judge(Append((5,)))
    >>> guess.trust > _HOPE, guess.token
    (True, None)
    """

    def __init__(self) -> None:
        self.trust = _HOPE
        self.token: int | None = None
        """The likeliest token of the last distribution; ``None`` where nothing is to be decided."""

    def judge(self, edit: Edit | None) -> None:
        """The decision is known; anything but one appended token says nothing about guesses."""
        if edit is None:
            return
        if self.token is not None and isinstance(edit, Append) and len(edit.ids) == 1:
            self.trust = _MEMORY * self.trust + (1 - _MEMORY) * (edit.ids[0] == self.token)
        self.token = None


def worthwhile(guesses: Sequence[Guess]) -> bool:
    """Whether a pass over all these guesses should be begun."""
    return bool(guesses) and prod(guess.trust for guess in guesses) >= _WORTH
