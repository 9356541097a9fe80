"""Beam search over joint moves: what the members are asked at each step, and which text has become certain.

A rule for the loop of token-level methods; it hands over text that all partial answers share. How moves are found is
``search.py``'s concern.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ensemble.during.token.agreement.items import Item, Track
from ensemble.during.token.agreement.lists import Lists
from ensemble.during.token.agreement.places import Bench
from ensemble.during.token.agreement.search import Found, search
from ensemble.during.token.bytes.lexicon import common_beginning
from ensemble.during.token.lockstep import Decision, NoRoom, Panel, Rule
from ensemble.errors import BadAnswer
from ensemble.request import FinishReason


class BeamRule(Rule):
    """The best partial answers, grown move by move. It has sessions of its own; the loop's stay unused."""

    def __init__(
        self,
        bench: Bench,
        weights: Mapping[int, float],
        *,
        beam: int,
        topk: int,
        patience: int,
        steps: int | None,
    ) -> None:
        """
        Args:
            weights: by the loop's seat, in the bench's order, summing to 1.
            steps: moves that an answer may have; ``None``: as many as it takes.
        """
        self._bench, self._shares = bench, weights
        self._weights = list(weights.values())
        self._beam, self._topk, self._patience = beam, topk, patience
        self._left = steps
        self._items = [Item((Track(),) * len(weights))]
        self._best: tuple[float, Item] | None = None
        """The best answer that has ended."""
        self._told = 0
        """Bytes handed over."""
        self._over: FinishReason | None = None

    async def elect(self, panel: Panel, position: int) -> Decision:
        while len(text := self._certain) == self._told and self._over is None:
            await self._step()
        if len(text) == self._told and self._over == "length":
            raise NoRoom
        told, self._told = self._told, len(text)
        return Decision(text=text[told:], spelling={}, shares=self._shares, logprob=0.0)

    async def close(self) -> None:
        await self._bench.close()

    @property
    def _certain(self) -> bytes:
        """Text that all answers share which may still be elected."""
        return common_beginning([item.text for item in (*self._items, *([self._best[1]] if self._best else []))])

    async def _step(self) -> None:
        try:
            found = None if self._left == 0 else await self._found()
        except NoRoom:
            found = None
        if found is None:
            self._cut()
        else:
            self._take(found)

    def _take(self, found: Found) -> None:
        ended = [move for move in found.moves if move[1].ended]
        self._best = max([*([self._best] if self._best else []), *ended], key=lambda move: move[0], default=None)
        self._items = [item for score, item in found.moves if not item.ended and score > self._least]
        self._left = None if self._left is None else self._left - 1
        if not self._items:
            self._conclude()

    @property
    def _least(self) -> float:
        """What a partial answer has to score more than."""
        return self._best[0] if self._best else -math.inf

    def _conclude(self) -> None:
        if self._best is None:
            raise BadAnswer("the members agree on no token, however unlikely", reason="unfinished")
        self._over = "stop"

    def _cut(self) -> None:
        """No more moves: an answer that has ended is better than one that is cut."""
        self._over = "stop" if self._best else "length"
        self._items = [] if self._best else self._items[:1]

    async def _found(self) -> Found:
        lists = Lists(self._bench, self._items, self._topk)
        await lists.begin()
        while True:
            found = search(self._items, lists.listings, self._weights, self._beam, self._least)
            if not await lists.more(found, self._patience):
                return found
