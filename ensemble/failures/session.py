"""A session that outlives its replica: it remembers what it was told, and tells it to another one if it has to.

What a session holds is a text that its member spelt and ids after it, so both are enough to make an equal one: a
vocabulary spells a text always the same way. Deadlines and second replicas belong to single messages, which are
``Asked``. Knows no policy but through its member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from ensemble.errors import BadAnswer, EnsembleError, MemberError
from ensemble.failures.checks import check
from ensemble.member import Append, Edit, Exchange, Question, Replace, Reply, Session, SyncText
from ensemble.request import Request
from ensemble.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ensemble.failures.guard import GuardedMember


class GuardedSession(Session):
    """One session of one request."""

    def __init__(self, guard: GuardedMember, inner: Session, request: Request) -> None:
        self.member, self.vocabulary = inner.member, inner.vocabulary
        self.guard = guard
        self.inner = inner
        self.held = _Held(request.partial.encode(), inner.vocabulary)
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


class Asked(asyncio.Future[Reply]):
    """One message and what comes of it. A future of its own kind: a task for each message would cost more than it."""

    def __init__(self, session: GuardedSession, question: Question | None, edit: Edit | None) -> None:
        super().__init__()
        self._session = session
        self._question, self._edit = question, edit

    # What most messages never need is not made for each of them.
    _sent: asyncio.Future[Reply] | None = None
    _give_up_at: float | None = None
    _work: asyncio.Task[None] | None = None
    _timers: Sequence[asyncio.TimerHandle] = ()

    def send(self) -> None:
        """Say it to the session's replica."""
        policy = self._session.guard.policy
        self._to = self._session.inner
        self._sent = self._to.post(self._question, edit=self._edit)
        self._sent.add_done_callback(self._came)
        if policy.timed:
            due = ((policy.step_seconds, self._late), (policy.hedge_seconds, self._slow))
            later = self.get_loop().call_later
            self._timers = [later(seconds, act) for seconds, act in due if seconds is not None]

    def cancel(self, msg: object = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._over()
        return cancelled

    def _came(self, sent: asyncio.Future[Reply]) -> None:
        """A reply, or what there is instead of one."""
        if self.done() or sent is not self._sent:
            return
        if sent.cancelled():
            self.cancel()
            return
        error = sent.exception() or self._unusable(sent.result())
        if error is None:
            self._count(sent.result())
        elif isinstance(error, EnsembleError):
            self._failed(error)
        else:
            self._end(error)

    def _unusable(self, reply: Reply) -> BadAnswer | None:
        session = self._session
        try:
            check(session.member, self._question, reply.payload, session.vocabulary.size)
        except BadAnswer as bad:
            return bad
        return None

    def _count(self, reply: Reply) -> None:
        """Take a reply as the answer."""
        session = self._session
        if self._edit is not None:
            session.held.note(self._edit)
        session.guard.succeeded()
        self._over()
        self.set_result(reply)

    def _end(self, error: BaseException) -> None:
        self._over()
        self.set_exception(error)

    def _failed(self, error: EnsembleError) -> None:
        guard = self._session.guard
        guard.failed(error)
        if self._work is not None and not self._work.done():
            return  # Another replica is being asked; it may do better.
        if guard.recovers(error) and self._session.held.known and self._in_time(guard.policy.patience):
            self._stop_timers()
            self._begin(self._again(error))
        else:
            self._end(error)

    def _in_time(self, patience: float) -> bool:
        now = self.get_loop().time()
        if self._give_up_at is None:
            self._give_up_at = now + patience
        return now <= self._give_up_at

    def _late(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.cancel()
        if self._work is not None and not self._work.done():
            self._work.cancel()
            self._work = None
        self._failed(self._session.guard.late())

    def _slow(self) -> None:
        if self._session.alone and self._session.held.known and self._work is None:
            self._begin(self._hedged())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = asyncio.ensure_future(work)
        self._work.add_done_callback(self._worked)

    def _worked(self, work: asyncio.Task[None]) -> None:
        if self.done() or work.cancelled() or (error := work.exception()) is None:
            return
        if self._sent is None or self._sent.done():
            self._end(error)

    async def _again(self, error: EnsembleError) -> None:
        """Have the session at another replica, and say it there."""
        await self._session.reopen(self._to, error)
        self._work = None
        if not self.done():
            self.send()

    async def _hedged(self) -> None:
        """Ask another replica as well; whoever is first counts."""
        session = self._session
        loser = second = await session.second()
        try:
            reply = await second.exchange(self._question, edit=self._edit)
            if (bad := self._unusable(reply)) is not None:
                raise bad
            if not self.done():
                sent, self._sent = self._sent, None
                if sent is not None:
                    sent.cancel()
                loser, session.inner = session.inner, second
                self._count(reply)
                session.guard.tell_hedged()
        finally:
            await loser.close()

    def _over(self) -> None:
        """Nobody waits any more."""
        if self._timers:
            self._stop_timers()
        self._session.landed()
        if self._sent is not None:
            self._sent.cancel()
        if self._work is not None and self._work is not _current() and not self._work.done():
            self._work.cancel()

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = ()


def _current() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


_LOG = 256
"""Edits after which they are summed up: few enough to keep, many enough to make a step cheap."""


class _Held:
    """What a session's continuation holds: a text in its member's spelling, then ids, then edits not yet summed up."""

    def __init__(self, text: bytes, vocabulary: Vocabulary) -> None:
        self._text = text
        self._vocabulary = vocabulary
        self._changed = False
        self._ids: list[int] = []
        self._log: list[Edit] = []
        self._known = True

    @property
    def known(self) -> bool:
        """False once it was cut back into the text, whose ids only the member knows."""
        self._sum_up()
        return self._known

    @property
    def edits(self) -> list[Edit]:
        """What makes a session like this one of one that was just opened."""
        self._sum_up()
        edits: list[Edit] = [SyncText(self._text)] if self._changed else []
        return [*edits, Append(tuple(self._ids))] if self._ids else edits

    def copy(self) -> _Held:
        self._sum_up()
        held = copy(self)
        held._ids, held._log = list(self._ids), []
        return held

    def note(self, edit: Edit) -> None:
        """An edit that was carried out."""
        self._log.append(edit)
        if len(self._log) >= _LOG:
            self._sum_up()

    def _sum_up(self) -> None:
        for edit in self._log:
            if isinstance(edit, SyncText):
                self._respell(edit.text)
            elif isinstance(edit, Append):
                self._ids.extend(edit.ids)
            else:
                self._cut(edit.count)
                self._ids.extend(edit.ids if isinstance(edit, Replace) else ())
        self._log.clear()

    def _respell(self, text: bytes) -> None:
        # Ids that spell the text already stay as they are.
        if self._text + self._vocabulary.text(self._ids) != text:
            self._text, self._ids, self._changed = text, [], True

    def _cut(self, count: int) -> None:
        kept = len(self._ids) - count
        self._known = self._known and kept >= 0
        del self._ids[max(kept, 0) :]
