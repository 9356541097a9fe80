"""What an answer consists of so far, and the request for the rest of it: the text that was told is never told again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ensemble.errors import EnsembleError
from ensemble.member import Member
from ensemble.request import Delta, Request

_PATIENT = 32
"""Pieces of text after which any place is as good as a boundary."""


class Written:
    """One choice, as told until now.

    >>> written = Written(Request.of("?", max_tokens=9)); written.take(Delta("An")); written.take(Delta("swer."))
    >>> written.text, written.at_boundary
    ('Answer.', True)
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._pieces: list[str] = []
        self._since_turn = 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def pieces(self) -> int:
        """Deltas with text."""
        return len(self._pieces)

    @property
    def at_boundary(self) -> bool:
        """Whether a word has just ended, or none has for long: a good place to let another member write on."""
        ended = bool(self._pieces) and not self._pieces[-1][-1:].isalnum()
        return ended or self._since_turn >= _PATIENT

    def take(self, delta: Delta) -> None:
        if delta.text:
            self._pieces.append(delta.text)
            self._since_turn += 1

    def turned(self) -> None:
        """Other members write on from here."""
        self._since_turn = 0

    async def rest(self, members: Sequence[Member]) -> Request | None:
        """The request for what is missing; ``None`` if the answer is as long as it may be.

        Args:
            members: the first that can, counts the tokens that have been written, in its own vocabulary.
        """
        if not self._pieces:
            return self._request
        sampling = self._request.sampling
        if sampling.max_tokens is not None:
            left = sampling.max_tokens - await self._tokens(members)
            if left <= 0:
                return None
            sampling = replace(sampling, max_tokens=left)
        return replace(self._request, partial=self._request.partial + self.text, sampling=sampling)

    async def _tokens(self, members: Sequence[Member]) -> int:
        for member in members:
            try:
                (ids,) = await member.tokenise([self.text.encode()])
            except EnsembleError:
                continue
            return len(ids)
        return len(self._pieces)
