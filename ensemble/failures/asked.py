"""One message to a guarded session, until it has a reply that counts or has failed for good.

Knows deadlines, the asking of a second replica, and when to try again; what a session holds, its session knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from ensemble.errors import BadAnswer, EnsembleError
from ensemble.failures.checks import check
from ensemble.member import Edit, Question, Reply

if TYPE_CHECKING:
    from ensemble.failures.session import GuardedSession


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
        if self._sent is not None and not self._sent.done():
            return  # The first replica may still answer.
        if isinstance(error, EnsembleError):
            self._failed(error)
        else:
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
