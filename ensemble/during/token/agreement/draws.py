"""Members draw in turn: one freely, each after it among the tokens that agree with the longest text so far.

A rule for the loop of token-level methods. Who draws freely is drawn too, in proportion to the weights, whenever all
have written the whole text. Nothing here ranks or searches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import cast

import numpy as np

from ensemble.during.token.agreement.items import Item, Track
from ensemble.during.token.agreement.listing import writable
from ensemble.during.token.agreement.lists import LOOKED_UP
from ensemble.during.token.agreement.places import Bench, Place
from ensemble.during.token.bytes.lexicon import lexicon_of
from ensemble.during.token.lockstep import Decision, NoRoom, Panel, Rule
from ensemble.errors import BadAnswer
from ensemble.member import Distribution, Floats, LogprobsAt, Next, Payload, Question
from ensemble.request import Sampling
from ensemble.sampling import draw, pick, uniform
from ensemble.vocabulary import Ids


class TurnsRule(Rule):
    """Elects what members draw in turn. It has sessions of its own; the loop's stay unused."""

    def __init__(self, bench: Bench, weights: Mapping[int, float], sampling: Sampling) -> None:
        """
        Args:
            weights: by the loop's seat, in the bench's order, summing to 1.
            sampling: not greedy; with a seed. ``max_tokens`` counts moves.
        """
        self._bench, self._shares = bench, weights
        self._weights = np.array(list(weights.values()))
        self._sampling = sampling
        self._item = Item((Track(),) * len(weights))
        self._draws = count()
        """Random numbers used, so that each has a part in one draw only."""
        self._moves = 0

    async def elect(self, panel: Panel, position: int) -> Decision:
        before = len(self._item.text)
        while not self._item.ended and len(self._item.text) == before:
            if self._moves == self._sampling.max_tokens:
                raise NoRoom
            await self._move()
        return Decision(text=self._item.text[before:], spelling={}, shares=self._shares, logprob=0.0)

    async def close(self) -> None:
        await self._bench.close()

    async def _move(self) -> None:
        """One token of each who moves."""
        item, self._moves = self._item, self._moves + 1
        order = self._order(item)
        questions = {self._place(item, seat): self._question(item, seat) for seat in order}
        told = await self._bench.ask(questions)
        for seat in order:
            place = self._place(item, seat)
            ids, logprobs = _by_id(questions[place], told[place])
            self._write(seat, ids, logprobs, opens=item.level and seat == order[0])
            if self._item.ended:
                return

    def _order(self, item: Item) -> list[int]:
        """Who moves, in turn; the first of all is drawn by weight."""
        moving = item.moving
        if not item.level:
            return moving
        first = pick(self._weights, uniform(self._sampling.seed or 0, next(self._draws)))
        return [first, *(seat for seat in moving if seat != first)]

    @staticmethod
    def _place(item: Item, seat: int) -> Place:
        return seat, item.tracks[seat].ids

    def _question(self, item: Item, seat: int) -> Question:
        if not item.postfix(seat):
            return Next(0)
        ids = writable(lexicon_of(self._bench.vocabulary(seat)), item.postfix(seat), LOOKED_UP)
        return Next(0) if ids is None else LogprobsAt(tuple(ids))

    def _write(self, seat: int, ids: Ids, logprobs: Floats, *, opens: bool) -> None:
        """A seat's draw among what agrees with the longest text; who opens may write anything, and stop for all."""
        vocabulary, postfix = self._bench.vocabulary(seat), self._item.postfix(seat)
        agrees = vocabulary.writable[ids] if opens else np.isin(ids, lexicon_of(vocabulary).along(postfix))
        chances = np.where(agrees, logprobs, -np.inf)
        if not np.isfinite(chances.max(initial=-np.inf)):
            name = self._bench.places[seat].member.name
            raise BadAnswer(f"{name} gives no chance to what others wrote", member=name, reason="unfinished")
        at = draw(chances, self._sampling, next(self._draws))
        id, logprob = int(ids[at]), float(logprobs[at])
        if id in vocabulary.stop_ids:
            self._item = Item(tuple(replace(track, ended=True) for track in self._item.tracks))
        else:
            self._item = self._item.moved({seat: (id, vocabulary.tokens[id], logprob)})


def _by_id(question: Question, payload: Payload) -> tuple[Ids, Floats]:
    """Ids in order, and their log-probabilities."""
    if isinstance(question, LogprobsAt):
        return np.array(question.ids, np.int32), cast(Floats, payload)
    distribution = cast(Distribution, payload)
    order = np.argsort(distribution.ids)
    return distribution.ids[order], distribution.logprobs[order]
