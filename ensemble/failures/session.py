"""A session that outlives its replica: it remembers what it was told, and tells it to another one if it has to.

What a session holds (``held.py``) is a text that its member spelt and ids after it, so both are enough to make an equal
one: a vocabulary spells a text always the same way. Deadlines and second replicas belong to single messages
(``asked.py``). Knows no policy but through its member.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ensemble.errors import EnsembleError, MemberError
from ensemble.failures.asked import Asked
from ensemble.failures.held import Held
from ensemble.member import Edit, Exchange, Question, Reply, Session
from ensemble.request import Request

if TYPE_CHECKING:
    from ensemble.failures.guard import GuardedMember


class GuardedSession(Session):
    """One session of one request."""

    def __init__(self, guard: GuardedMember, inner: Session, request: Request) -> None:
        self.member, self.vocabulary = inner.member, inner.vocabulary
        self.guard = guard
        self.inner = inner
        self.held = Held(request.partial.encode(), inner.vocabulary)
        self._request = request
        self._flying = 0
        self._turn = asyncio.Lock()
        self._closed = False

    async def exchange(self, question: Question | None = None, *, edit: Edit | None = None) -> Reply:
        return await self.post(question, edit=edit)

    def post(self, question: Question | None = None, *, edit: Edit | None = None) -> asyncio.Future[Reply]:
        asked = Asked(self, question, edit)
        self._flying += 1
        asked.send()
        return asked

    async def _send(self, exchange: Exchange) -> Reply:
        return await self.post(exchange.question, edit=exchange.edit)

    async def fork(self) -> Session:
        try:
            inner = await self.inner.fork()
        except MemberError as error:
            self.guard.failed(error)
            if not self.guard.recovers(error):
                raise
            await self.reopen(self.inner, error)
            inner = await self.inner.fork()
        fork = GuardedSession(self.guard, inner, self._request)
        fork.held = self.held.copy()
        return fork

    async def close(self) -> None:
        self._closed = True
        await self.inner.close()

    @property
    def alone(self) -> bool:
        """Whether only one message is under way."""
        return self._flying == 1

    def landed(self) -> None:
        self._flying -= 1

    async def reopen(self, lost: Session, error: EnsembleError) -> None:
        """Go on at another replica, unless somebody else has seen to that since ``lost`` was spoken to."""
        async with self._turn:
            if self.inner is lost:
                self.inner = await self.guard.recovered(self._request, lost, self.held.edits, error)
                await lost.close()
        if self._closed:
            await self.inner.close()

    async def second(self) -> Session:
        """An equal session at another replica, if there is one."""
        return await self.guard.reopened(self._request, self.inner, self.held.edits)
