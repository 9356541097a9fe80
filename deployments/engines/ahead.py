"""Running ahead: while drivers decide, an idle engine computes what comes after its own guess of the decision.

A guess is the likeliest token of the distribution just sent. Where the decision equals it, the next distribution is
there already or under way; where it does not, the pass is abandoned at the next layer, so that committed work waits
for a layer at most. An engine runs ahead only where all guesses of a pass are likely to come true. Never billed: what
a session costs does not depend on it.
"""

from __future__ import annotations

import numpy as np

from deployments.engines.work import Logits, State, Work, finite
from ensemble.member import Append, Edit, Floats

_HOPE = 0.7
"""How likely a guess is taken to come true before anything is known of its session."""
_MEMORY = 0.9
"""How much of that belief is kept with each outcome."""
_WORTH = 0.5
"""Least probability that all guesses of a pass come true at which running ahead pays: a pass in vain costs up to a
layer, a pass that is kept saves a round trip, and both take about as long."""


class Guess:
    """What one session's next token will be, and how far such guesses can be trusted."""

    def __init__(self) -> None:
        self.trust = _HOPE
        self.token: int | None = None

    def make(self, row: Floats, writable: Floats) -> None:
        """From log-probabilities, shape [size]."""
        self.token = int(np.where(writable, row, -np.inf).argmax())

    def judge(self, edit: Edit | None) -> None:
        """The decision is known; anything but one appended token says nothing about guesses."""
        if self.token is not None and isinstance(edit, Append) and len(edit.ids) == 1:
            self.trust = _MEMORY * self.trust + (1 - _MEMORY) * (edit.ids[0] == self.token)
        self.token = None


def worthwhile(guesses: list[Guess]) -> bool:
    """Whether a pass over all these guesses should be begun."""
    return bool(guesses) and float(np.prod([guess.trust for guess in guesses])) >= _WORTH


class AheadWork(Work):
    """The distribution after a guess; kept with the session until the decision is known."""

    def __init__(self, state: State, token: int) -> None:
        super().__init__(state)
        self._token = token

    def stem(self) -> list[int]:
        return [*self.state.continuation.prompt, *self._ids, self._token]

    @property
    def needs_stem(self) -> bool:
        return True

    def absorb(self, logits: Logits) -> None:
        self.state.foresee([*self._ids, self._token], finite(logits.row(0)))
        self.finished = True

    def expects(self, ids: list[int]) -> bool:
        """Whether these ids of the continuation are what was guessed."""
        return len(ids) == len(self._ids) + 1 and ids[-1] == self._token and ids[:-1] == self._ids
