"""Members whose next token depends on the very ids before it, and what they give to bytes, by enumeration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from token_toys import vocabulary

from ensemble.distributions import log_softmax
from ensemble.ensemble import Ensemble
from ensemble.member import Edit, Exchange, Floats, Question, Reply
from ensemble.request import Request
from ensemble.testing import LocalMember
from ensemble.vocabulary import LongestMatch


class Speller(LocalMember):
    """Other distributions after ``a b`` than after ``ab``."""

    def __init__(
        self, name: str, tokens: Sequence[bytes], seed: int, *, sharpness: float = 2.0, stop: float = 0.0, **options
    ) -> None:
        self.seed, self.sharpness, self.stop = seed, sharpness, stop
        self.asked: list[tuple[Edit | None, Question | None]] = []
        """Edits and questions of all exchanges."""
        self.forks = 0
        super().__init__(name, LongestMatch(vocabulary(tokens)), self._row, **options)

    def prompt_ids(self, request: Request) -> list[int]:
        return []

    def _row(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        rng = np.random.default_rng([self.seed, *ids])
        logits = rng.normal(size=self.tokeniser.vocabulary.size) * self.sharpness
        logits[list(self.tokeniser.vocabulary.stop_ids)] += self.stop
        return log_softmax(logits)

    def chances(self, ids: Sequence[int]) -> Floats:
        """Shape [V]: what it writes next, control ids left out."""
        row = np.where(self.tokeniser.vocabulary.writable, np.exp(self.model([], ids)), 0.0)
        return row / row.sum()

    async def start(self, request: Request):
        return noted(self, await super().start(request))


def noted(member: Speller, session):
    """Write down what a session and its forks are asked."""
    send, fork = session._send, session.fork

    async def sent(exchange: Exchange) -> Reply:
        member.asked.append((exchange.edit, exchange.question))
        return await send(exchange)

    async def forked():
        member.forks += 1
        return noted(member, await fork())

    session._send, session.fork = sent, forked
    return session


def covered(member: Speller, text: bytes) -> float:
    """Probability that what the member writes begins with this text, over all token sequences."""
    tokens, stops = member.tokeniser.vocabulary.tokens, member.tokeniser.vocabulary.stop_ids

    @cache
    def of(rest: bytes, ids: tuple[int, ...]) -> float:
        if not rest:
            return 1.0
        chances = member.chances(ids)
        whole = sum(chances[i] for i, t in enumerate(tokens) if i not in stops and t and t.startswith(rest))
        begun = [(i, t) for i, t in enumerate(tokens) if t and rest.startswith(t) and t != rest]
        return float(whole + sum(chances[i] * of(rest[len(t) :], (*ids, i)) for i, t in begun))

    return of(text, ())


def said(member: Speller, text: bytes) -> float:
    """Probability that the member writes exactly this text and stops."""
    tokens, stops = member.tokeniser.vocabulary.tokens, member.tokeniser.vocabulary.stop_ids

    def of(rest: bytes, ids: tuple[int, ...]) -> float:
        chances = member.chances(ids)
        if not rest:
            return float(chances[list(stops)].sum())
        begun = [(i, t) for i, t in enumerate(tokens) if t and rest.startswith(t)]
        return float(sum(chances[i] * of(rest[len(t) :], (*ids, i)) for i, t in begun))

    return of(text, ())


def next_byte(member: Speller, text: bytes) -> Floats:
    """Shape [257]: bytes, then the stop; by enumeration."""
    whole = covered(member, text)
    bytes_ = [covered(member, text + bytes([b])) / whole for b in range(256)]
    return np.array([*bytes_, said(member, text) / whole])


def byte_level(members: Sequence[LocalMember], **options) -> Ensemble:
    return Ensemble("e", "byte_level", members, options=options)


def abe(members: Sequence[LocalMember], **options) -> Ensemble:
    return Ensemble("e", "abe", members, options=options)
