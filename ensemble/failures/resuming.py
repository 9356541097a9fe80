"""A generation that another replica takes up where the first was lost: what was told stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from ensemble.concurrency import merge
from ensemble.errors import BadAnswer
from ensemble.failures.written import Written
from ensemble.member import Member
from ensemble.request import Delta, Event, Finish, Request, Spent
from ensemble.sampling import seeded


class Resumed:
    """One request to one member, by choice."""

    def __init__(self, request: Request, member: Member) -> None:
        self._request = request
        self._member = member
        self._unfinished = {choice: Written(self._single(choice)) for choice in range(request.n)}
        self._interrupted = False
        self._give_up_at: float | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        """Of the request at first, of the rest of its unfinished choices from then on.

        Raises:
            BadAnswer: the member ended before its answers did, or wrote more than it was asked for.
        """
        async with aclosing(await self._stream()) as events:
            async for event in events:
                self._take(event)
                yield event
        if self._unfinished:
            raise self._bad(f"left {len(self._unfinished)} answers unfinished", "unfinished")

    def may_go_on(self, patience: float) -> bool:
        """Whether there is time for another replica; counted from the first loss since something was written."""
        now = asyncio.get_running_loop().time()
        self._interrupted = True
        if self._give_up_at is None:
            self._give_up_at = now + patience
        return now < self._give_up_at

    async def _stream(self) -> AsyncGenerator[Event, None]:
        if not self._interrupted:
            return self._member.generate(self._request)  # type: ignore[return-value]
        return merge([self._rest(choice, await self._unfinished[choice].rest([self._member])) for choice in self._left])

    @property
    def _left(self) -> list[int]:
        return list(self._unfinished)

    async def _rest(self, choice: int, request: Request | None) -> AsyncGenerator[Event, None]:
        if request is None:
            yield Finish("length", choice)
            return
        async with aclosing(self._member.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event if isinstance(event, Spent) else replace(event, choice=choice)

    def _single(self, choice: int) -> Request:
        return replace(self._request, n=1, sampling=seeded(self._request.sampling, choice))

    def _take(self, event: Event) -> None:
        if isinstance(event, Delta | Finish) and event.choice not in self._unfinished:
            raise self._bad("goes on with an answer that is finished, or was not asked for", "over_long")
        if isinstance(event, Finish):
            del self._unfinished[event.choice]
        elif isinstance(event, Delta):
            written = self._unfinished[event.choice]
            written.take(event)
            self._give_up_at = None
            most = self._request.sampling.max_tokens
            # A piece is a token at least, but for the one that was held back at the end.
            if most is not None and written.pieces > most + 1:
                raise self._bad(f"was asked for {most} tokens and goes on", "over_long")

    def _bad(self, what: str, reason: str) -> BadAnswer:
        return BadAnswer(f"{self._member.name} {what}", member=self._member.name, reason=reason)
