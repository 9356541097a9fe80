"""Drafts: tokens that one member has written ahead and that nobody has agreed to yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from ensemble.during.span.seats import Seat
from ensemble.member import Distribution, Proposal, Propose, Until
from ensemble.request import FinishReason


@dataclass(frozen=True, slots=True)
class Drafted:
    """One token of a draft."""

    id: int
    text: bytes
    """Empty for a stop id."""
    logprob: float
    listed: Distribution
    """What else was likely there, by the drafter."""

    @property
    def probability(self) -> float:
        return exp(self.logprob)


@dataclass(frozen=True, slots=True)
class Draft:
    """What was written at one go."""

    tokens: tuple[Drafted, ...]
    ended: FinishReason | None
    """Why the drafter cannot go on after these; ``None`` if it can."""


class Drafter:
    """The member that writes ahead."""

    def __init__(self, seat: Seat, topk: int) -> None:
        """
        Args:
            topk: tokens to list at each place.
        """
        self.seat = seat
        self.ids: list[int] = []
        """Committed since the text that was adopted last, or since the beginning."""
        self.adopted: bytes | None = None
        """The text that was adopted last."""
        self._topk = topk

    async def draft(self, pending: Sequence[Drafted], tokens: int) -> Draft:
        """Go on after a draft that is still pending, for so many tokens at most.

        Raises:
            NoRoom: what is pending does not fit into the drafter's context.
        """
        question = Propose(Until(tokens), topk=self._topk)
        reply = await self.seat.ask(question, [*self.ids, *(token.id for token in pending)])
        assert isinstance(reply.payload, Proposal)
        return Draft(self._tokens(reply.payload), _ended(reply.payload, reply.room))

    def _tokens(self, proposal: Proposal) -> tuple[Drafted, ...]:
        texts = self.seat.vocabulary.tokens
        stops = self.seat.vocabulary.stop_ids
        rows = zip(proposal.ids, proposal.logprobs.tolist(), proposal.distributions, strict=True)
        return tuple(Drafted(i, b"" if i in stops else texts[i], logprob, listed) for i, logprob, listed in rows)

    def adopt(self, text: bytes) -> None:
        """Take over a text for which there is no id: all of the answer is spelt anew."""
        self.seat.rebase(text)
        self.adopted, self.ids = text, []


def _ended(proposal: Proposal, room: int) -> FinishReason | None:
    if proposal.finish == "stop":
        return "stop"
    return "length" if len(proposal.ids) >= room else None
