"""A member's place in a draft: its session, and how the session is brought to the ids that a question is about.

The driver says which ids a session must hold; a seat knows which it holds, and sends the difference with the question
in one exchange. Nothing here knows who drafts and who verifies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ensemble.continuation import difference
from ensemble.during.token.lockstep import NoRoom
from ensemble.errors import ContextTooLong
from ensemble.member import Edit, Member, Question, Reply, Session, SyncText
from ensemble.request import Request
from ensemble.vocabulary import Vocabulary


class Seat:
    """One member's session. Its continuation is a text whose spelling is the member's own, then ids."""

    def __init__(self, number: int, member: Member) -> None:
        self.number = number
        """Of the member in the configured order."""
        self.member = member
        self._session: Session | None = None
        self._held: list[int] = []
        self._text: bytes | None = None
        self._room = 0
        self._turn = asyncio.Lock()

    async def open(self, request: Request) -> None:
        """Open the session and learn how much room it has.

        Raises:
            ContextTooLong: the prompt leaves no room.
        """
        self._session = await self.member.start(request)
        self._room = (await self._session.exchange(edit=self._edit(()))).room
        self._text = None

    @property
    def vocabulary(self) -> Vocabulary:
        """Of an open seat."""
        assert self._session is not None, "a seat's vocabulary is known once it is open"
        return self._session.vocabulary

    def room(self, ids: Sequence[int]) -> int:
        """How many more ids fit after these; about that while a text that ``rebase`` set has not been spelt."""
        dropped = 0 if self._text else len(self._held)
        return self._room + dropped - len(ids)

    def rebase(self, text: bytes) -> None:
        """Let the member spell this text its own way; ids count from its end from now on."""
        self._text = text

    async def ask(self, question: Question, ids: Sequence[int]) -> Reply:
        """Ask about the place after these ids; questions to one seat take turns.

        Raises:
            NoRoom: the ids do not fit into the context.
        """
        async with self._turn:
            assert self._session is not None, "a seat is opened before it is asked"
            try:
                if self._text is not None and ids:
                    await self._rebased(self._session)
                reply = await self._session.exchange(question, edit=self._edit(ids))
            except ContextTooLong as error:
                raise NoRoom from error
            self._held, self._text, self._room = list(ids), None, reply.room
            return reply

    async def _rebased(self, session: Session) -> None:
        await session.exchange(edit=self._edit(()))
        self._held, self._text = [], None

    def _edit(self, ids: Sequence[int]) -> Edit | None:
        if self._text is not None:
            return SyncText(self._text)
        return difference(self._held, ids)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
