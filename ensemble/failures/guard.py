"""Members that a method may rely on: answers are checked, deadlines kept, and what is lost is taken up elsewhere.

A guard stands between a method and metered members, so that whatever it asks a second time is counted as well. It
answers with a reply that counts, or with a typed error that knows through which member it came. Who may be spared is
not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from ensemble.errors import MEMBER_FAILURES, EnsembleError, MemberError, MemberTimeout
from ensemble.failures.breaker import Breaker
from ensemble.failures.crew import Crew
from ensemble.failures.policy import Policy
from ensemble.failures.resuming import Resumed
from ensemble.failures.session import GuardedSession
from ensemble.member import Edit, Member, Session
from ensemble.request import Event, Incident, Request, Usage
from ensemble.sampling import seeded
from ensemble.vocabulary import Unspellable

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two looks for another replica."""


class GuardedMember(Member):
    """One member of one request."""

    def __init__(self, inner: Member, policy: Policy, breaker: Breaker, crew: Crew, *, spared: bool = True) -> None:
        """
        Args:
            spared: whether an answer can do without it; nobody can do without the model that a judge asks.
        """
        self.card = inner.card
        self._spared = spared
        self.policy = policy
        self._inner = inner
        self._breaker = breaker
        self._crew = crew

    def spent(self) -> Usage:
        return self._inner.spent()

    async def start(self, request: Request) -> Session:
        try:
            inner = await self._in_time(self._inner.start(request))
        except MEMBER_FAILURES as error:
            self.failed(error)
            if not self.recovers(error):
                raise
            inner = await self._patiently(lambda: self._in_time(self._inner.start(request)), error)
            self.tell_recovered(error)
        # Opening is no proof: only replies are.
        return GuardedSession(self, inner, request)

    async def reopened(self, request: Request, lost: Session, edits: Sequence[Edit]) -> Session:
        """A new session in the place of one that is lost or slow, at another replica if there is one.

        Args:
            edits: what makes it equal to that one.

        Raises:
            MemberError: it cannot be opened, or is lost as well.
        """
        session = await self._in_time(self._inner.restart(request, lost))
        try:
            for edit in edits:
                await self._in_time(session.exchange(edit=edit))
        except BaseException:
            await session.close()
            raise
        return session

    async def recovered(self, request: Request, lost: Session, edits: Sequence[Edit], error: EnsembleError) -> Session:
        """The same, with the patience of the policy; ``error`` is what made it necessary."""
        session = await self._patiently(lambda: self.reopened(request, lost, edits), error)
        self.tell_recovered(error)
        return session

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if self.policy.on_loss == "recover":
            # Whoever takes the request up has to draw from where it was left.
            request = replace(request, sampling=seeded(request.sampling))
        resumed = Resumed(request, self._inner)
        while True:
            try:
                async with aclosing(self._told(resumed.events())) as events:
                    async for event in events:
                        yield event
                self.succeeded()
                return
            except MEMBER_FAILURES as error:
                self.failed(error)
                if not self.recovers(error) or not resumed.may_go_on(self.policy.patience):
                    raise
                self.tell_recovered(error)
                await asyncio.sleep(self._pause(error, _FIRST_PAUSE))

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        try:
            return await self._in_time(self._inner.tokenise(texts))
        except MEMBER_FAILURES as error:
            self.failed(error)
            if not self.recovers(error):
                raise
            spelt = await self._patiently(lambda: self._in_time(self._inner.tokenise(texts)), error)
            self.tell_recovered(error)
            return spelt

    def recovers(self, error: EnsembleError) -> bool:
        """Whether another replica may do better."""
        return self.policy.on_loss == "recover" and error.retryable

    def failed(self, error: EnsembleError) -> None:
        """Note what the member did wrong, and that it came through this one."""
        error.through = self.name if self._spared else None
        # What a client wants written that the member's vocabulary has no ids for says nothing of the member's health.
        if isinstance(error, MemberError) and not isinstance(error, Unspellable):
            self._breaker.failed()

    def succeeded(self) -> None:
        if self._breaker.troubled:
            self._breaker.succeeded()

    def late(self) -> MemberTimeout:
        return MemberTimeout(f"{self.name} took more than {self.policy.step_seconds:g} seconds", member=self.name)

    def tell_recovered(self, error: EnsembleError) -> None:
        self._crew.tell("recovered", error.code, self.name)

    def tell_hedged(self) -> None:
        self._crew.tell("hedged", "slow", self.name)

    async def _patiently(self, asked: Callable[[], Awaitable[T]], error: EnsembleError) -> T:
        """What is asked again and again, as long as the policy has patience."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.policy.patience
        pause = _FIRST_PAUSE
        while loop.time() < end:
            try:
                return await asked()
            except MEMBER_FAILURES as again:
                error = again
                await asyncio.sleep(self._pause(error, pause))
                pause = min(2 * pause, _LONGEST_PAUSE)
        self.failed(error)
        raise error

    def _pause(self, error: EnsembleError, least: float) -> float:
        """Seconds until it is asked again: as long as it says itself, within the policy's patience."""
        return min(max(least, error.retry_after or 0.0), self.policy.patience)

    async def _told(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Events, each in time; what nested ensembles tell of incidents goes to the crew."""
        async with aclosing(events):
            while (event := await self._in_time(anext(events, None))) is not None:
                if isinstance(event, Incident):
                    self._crew.note(event)
                else:
                    yield event

    async def _in_time(self, work: Awaitable[T]) -> T:
        if self.policy.step_seconds is None:
            return await work
        try:
            async with asyncio.timeout(self.policy.step_seconds) as limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self.late() from error


def guarded(
    members: Sequence[Member], policy: Policy, breakers: Mapping[str, Breaker], crew: Crew, *, spared: bool = True
) -> list[Member]:
    """The members of one request, guarded.

    Args:
        spared: see ``GuardedMember``.
    """
    return [GuardedMember(member, policy, breakers[member.name], crew, spared=spared) for member in members]
