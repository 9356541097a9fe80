"""Members of one vocabulary around one answer, each of which may hold drafts that nobody has decided on yet.

A panel whose seats are kept up to date by ids alone: what a session holds and what it should hold differ by an edit
that travels with the next question. Drafts that are accepted where they already stand cost nothing. Nothing here knows
who drafts, or what is accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ensemble.concurrency import together
from ensemble.continuation import difference
from ensemble.during.token.lockstep import Decision, Panel
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.member import Card, Member, Payload, Question, Reply, Session
from ensemble.request import Request
from ensemble.vocabulary import Vocabulary

_RULE = "drafting needs members of one vocabulary"


def check_one_vocabulary(members: Sequence[Card]) -> None:
    """Refuse members whose cards tell that their vocabularies differ.

    Raises:
        ConfigurationError: naming two of them.
    """
    known = [card for card in members if card.vocabulary]
    for card in known:
        if card.vocabulary != known[0].vocabulary:
            differ = f"those of {known[0].name} and {card.name} differ"
            raise ConfigurationError(f"{_RULE}; {differ}; gac and unite without draft take both", param="members")


class DraftPanel(Panel):
    """The members of one run, by seat; sessions are opened by the first question."""

    def __init__(self, request: Request, members: Sequence[Member]) -> None:
        # A panel in what it can be asked; its seats, which learn text, are replaced by these, which learn ids.
        self._places = [_Place(member, request) for member in members]

    async def exchange(self, seat: int, question: Question, ahead: Sequence[int] = ()) -> Reply:
        """Ask one seat, whose session then holds what was committed and ``ahead``.

        Raises:
            BadRequest: its vocabulary is not that of the others.
            EnsembleError: it failed.
        """
        place = self._places[seat]
        if place.session is None:
            place.session = await place.member.start(place.request)
            self._compare(place.session)
        return await place.exchange(place.session, question, ahead)

    async def ask(self, questions: Mapping[int, Question]) -> dict[int, Payload]:
        replies = await together(self.exchange(seat, question) for seat, question in questions.items())
        return {seat: reply.payload for seat, reply in zip(questions, replies, strict=True)}

    def member(self, seat: int) -> Member:
        return self._places[seat].member

    def vocabulary(self, seat: int) -> Vocabulary:
        session = self._places[seat].session
        assert session is not None, "a seat's vocabulary is known once it has been asked"
        return session.vocabulary

    def room(self, seat: int) -> int | None:
        """Tokens that the whole answer may have at this seat; ``None`` until it has been asked."""
        return self._places[seat].room

    def commit(self, decision: Decision) -> None:
        for number, place in enumerate(self._places):
            place.learned.extend(decision.spelling.get(number, ()) or self._any(decision))

    @property
    def full(self) -> bool:
        return False

    async def close(self) -> None:
        await asyncio.gather(*(place.session.close() for place in self._places if place.session is not None))

    @staticmethod
    def _any(decision: Decision) -> tuple[int, ...]:
        """The spelling of a seat that took no part: any, as the vocabulary is the same."""
        return next(iter(decision.spelling.values()), ())

    def _compare(self, session: Session) -> None:
        for other in (place.session for place in self._places):
            if other is not None and other.vocabulary.fingerprint != session.vocabulary.fingerprint:
                differ = f"those of {other.member} and {session.member} differ"
                raise BadRequest(f"{_RULE}; {differ}; ask gac or unite without draft", param="model")


class _Place:
    """One member's session, and by how much it differs from what it should be."""

    def __init__(self, member: Member, request: Request) -> None:
        self.member = member
        self.request = request
        self.session: Session | None = None
        self.room: int | None = None
        self.learned: list[int] = []
        """Committed ids that it has not been told."""
        self._ahead: list[int] = []
        """Ids that it holds beyond the committed ones it has been told."""
        self._length = 0
        """Committed ids that it has been told."""

    async def exchange(self, session: Session, question: Question, ahead: Sequence[int]) -> Reply:
        told = len(self.learned)
        edit = difference(self._ahead, [*self.learned, *ahead])
        reply = await session.exchange(question, edit=edit)
        # More may have been committed meanwhile.
        self.learned = self.learned[told:]
        self._ahead, self._length = list(ahead), self._length + told
        self.room = reply.room + self._length + len(self._ahead)
        return reply
