"""Work under way at an engine: what it needs of a pass, for which session, and how it takes in what was computed.

A work says which ids must be in the cache and which logits it waits for, and takes them in when they are there. It
knows no model, no slot and no batch: those are the engine's. Kinds of work: ``answering.py`` and ``writing.py``.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from deployments.engines.guess import Guess
from deployments.engines.heads import Read
from ensemble.continuation import Continuation
from ensemble.distributions import likeliest
from ensemble.errors import BadAnswer
from ensemble.member import Distribution, Floats, Reply
from ensemble.vocabulary import Ids


@dataclass(slots=True, eq=False)
class State:
    """One session at the engine: its ids, and the last distribution if it still belongs to them."""

    key: str
    continuation: Continuation
    answered: tuple[int, Reply] | None = None
    """Last version and its reply."""
    touched: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Messages to one session are carried out one after another."""
    guess: Guess = field(default_factory=Guess)
    _last: tuple[list[int], Floats] | None = None
    _foreseen: tuple[list[int], Floats] | None = None

    @property
    def row(self) -> Floats | None:
        """Log-probabilities after the last id, shape [size]; ``None`` if an edit has made them stale."""
        # Every edit makes a new list, so a distribution belongs to the list object that it was computed for. A work
        # that was given up while its pass ran may still remember: for a list that is not the session's any more.
        if self._last is not None and self._last[0] is self.continuation.ids:
            return self._last[1]
        if self._foreseen is not None and self._foreseen[0] == self.continuation.ids:
            self._last, self._foreseen = (self.continuation.ids, self._foreseen[1]), None
            return self._last[1]
        return None

    def remember(self, ids: list[int], row: Floats) -> None:
        """Keep the distribution after these ids of the continuation."""
        self._last, self._foreseen = (ids, row), None

    def foresee(self, ids: list[int], row: Floats) -> None:
        """Keep the distribution after ids that the continuation may come to have."""
        self._foreseen = (ids, row)


@dataclass(frozen=True, slots=True)
class Logits:
    """What one pass computed for one work; n wanted places."""

    logprobs: Floats
    """Shape [n, size], normalised, float32."""
    top_ids: Ids
    """Shape [n, K]: the likeliest ids, K at least what the work asked for."""
    hidden: Floats | None
    """Shape [n, hidden size]."""
    outcomes: Floats | None = None
    """Shape [o]: what a head has read at the first of these places."""

    def row(self, place: int) -> Floats:
        """Log-probabilities of one place."""
        row: Floats = self.logprobs[place]
        return row

    def top(self, row: int, k: int) -> Distribution:
        """The ``k`` likeliest tokens of one place, ties in order of id; 0: all."""
        logprobs = self.logprobs[row]
        if k == 0 or k >= len(logprobs):
            return likeliest(logprobs, 0)
        ids = self.top_ids[row, :k]
        order = np.lexsort((ids, -logprobs[ids]))
        return Distribution(ids[order], logprobs[ids[order]], len(logprobs))


class Work(ABC):
    """One thing a session waits for."""

    topk = 0
    """Tokens to list per wanted place, beyond what a single maximum gives."""
    hidden = False
    read: Read | None = None
    """What a head is to read after the stem."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._ids = state.continuation.ids
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished = False

    def stem(self) -> list[int]:
        """Ids that must be in the cache, prompt included."""
        return self.state.continuation.all_ids

    def tree(self) -> tuple[Sequence[int], Sequence[int]]:
        """Ids to be tried below the stem and each one's parent (-1: the stem)."""
        return (), ()

    @property
    def needs_stem(self) -> bool:
        """Whether the distribution after the stem has still to be computed."""
        return self.state.row is None

    def prepare(self) -> None:  # noqa: B027  (a hook that some works have no use for)
        """Finish without a pass, if that is possible."""

    @abstractmethod
    def absorb(self, logits: Logits) -> None:
        """Take in the wanted places: the stem's, if needed, then one for each id of the tree."""

    def deliver(self) -> None:
        """Hand on what is new; called on the event loop after each pass."""
        if self.finished and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        self.finished = True
        if not self.done.done():
            self.done.set_exception(error)

    def _stem_row(self, logits: Logits) -> Floats:
        if not self.needs_stem:
            assert self.state.row is not None
            return self.state.row
        row = finite(logits.row(0))
        self.state.remember(self._ids, row)
        return row


def finite(row: Floats) -> Floats:
    """The row, if it is a distribution.

    Raises:
        BadAnswer: the model computed something that is none.
    """
    if np.isnan(row[0]):
        raise BadAnswer("the model's logits are not numbers", reason="nan")
    return row
