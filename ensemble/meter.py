"""One request's meter: counts what every member spends, stops at the budget, and closes what was left open.

A method is given metered members. It need not know of budgets, usage or leaks: the meter sees every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from ensemble.errors import BudgetExceeded
from ensemble.member import Edit, Exchange, Member, Question, Reply, Session
from ensemble.request import Budget, Event, Request, Spent, Usage

_AMOUNTS = ("calls", "tokens", "cost")
"""Of a budget, all but time."""


class Meter:
    """Usage of one request by member, its budget, and its open sessions."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._start = asyncio.get_running_loop().time()
        self._deadline = self._start + budget.seconds - budget.waited if budget.seconds is not None else None
        self._limits = {name: limit for name in _AMOUNTS if (limit := getattr(budget, name)) is not None}
        self._spent = Usage()
        self._unreported: dict[str, Usage] = {}
        self._open: set[Session] = set()
        self._begun = 0

    def wrap(self, members: Iterable[Member]) -> list[Member]:
        """The members, metered."""
        return [_MeteredMember(member, self) for member in members]

    def charge(self, member: str, usage: Usage) -> None:
        """Add to a member's usage."""
        if self._limits:
            self._spent += usage
        before = self._unreported.get(member)
        self._unreported[member] = usage if before is None else before + usage

    def drain(self) -> list[Spent]:
        """What was spent since the last call."""
        spent = [Spent(member, usage) for member, usage in self._unreported.items()]
        self._unreported.clear()
        return spent

    def left(self) -> Budget:
        """What may still be spent.

        Raises:
            BudgetExceeded: nothing.
        """
        spent = replace(self._spent, calls=max(self._spent.calls, self._begun))
        return self._budget.after(spent, asyncio.get_running_loop().time() - self._start)

    @property
    def timed(self) -> bool:
        """Whether messages have to be watched while they are under way."""
        return self._deadline is not None

    @asynccontextmanager
    async def call(self, *, new: bool = True) -> AsyncIterator[None]:
        """Around every message to a member.

        Args:
            new: whether the message begins a call; going on with one is not limited by the number of calls.

        Raises:
            BudgetExceeded: before the message if nothing is left, or during it when time runs out.
        """
        self.check(new=new)
        try:
            async with asyncio.timeout_at(self._deadline) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._budget.exceeded("seconds") from error

    def check(self, *, new: bool) -> None:
        """Before a message: note that a call begins, and refuse it if nothing is left.

        Raises:
            BudgetExceeded: naming the amount that is used up.
        """
        if self._limits:
            # A call counts from its beginning, so that calls that begin together do not all find the same one left.
            calls = max(self._spent.calls, self._begun) if new else 0
            used = {"calls": calls, "tokens": self._spent.total_tokens, "cost": self._spent.cost}
            for name, limit in self._limits.items():
                if used[name] >= limit:
                    raise self._budget.exceeded(name)
        self._begun += new

    def opened(self, session: Session) -> None:
        self._open.add(session)

    def closed(self, session: Session) -> None:
        self._open.discard(session)

    async def close(self) -> None:
        """Close every session still open, all at once."""
        await asyncio.gather(*(session.close() for session in tuple(self._open)))


class _MeteredMember(Member):
    def __init__(self, inner: Member, meter: Meter) -> None:
        self.card = inner.card
        self._inner = inner
        self._spent = Usage()
        self._meter = meter

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        # A nested ensemble stops by itself before this meter has to stop it; its failure is then this ensemble's.
        request = replace(request, budget=replace(self._meter.left(), exhausted=None))
        async with aclosing(self._inner.generate(request)) as events:  # type: ignore[type-var]
            new = True
            while True:
                async with self._meter.call(new=new):
                    event = await anext(events, None)
                new = False
                if event is None:
                    return
                if isinstance(event, Spent):
                    self._meter.charge(event.member, event.usage)
                    self._spent += event.usage
                else:
                    yield event

    def spent(self) -> Usage:
        return self._spent

    async def start(self, request: Request) -> Session:
        async with self._meter.call():
            inner = await self._inner.start(request)
        self._meter.charge(self.name, Usage(calls=1))
        return _MeteredSession(inner, self._meter)

    async def restart(self, request: Request, lost: Session) -> Session:
        assert isinstance(lost, _MeteredSession), "what is opened again was opened here"
        async with self._meter.call():
            inner = await self._inner.restart(request, lost.inner)
        self._meter.charge(self.name, Usage(calls=1))
        return _MeteredSession(inner, self._meter)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        async with self._meter.call(new=False):
            return await self._inner.tokenise(texts)


class _MeteredSession(Session):
    def __init__(self, inner: Session, meter: Meter) -> None:
        self.member, self.vocabulary = inner.member, inner.vocabulary
        self.inner = inner
        self._meter = meter
        meter.opened(self)

    async def exchange(self, question: Question | None = None, *, edit: Edit | None = None) -> Reply:
        async with self._meter.call(new=False):
            reply = await self.inner.exchange(question, edit=edit)
        self._meter.charge(self.member, reply.usage)
        return reply

    def post(self, question: Question | None = None, *, edit: Edit | None = None) -> asyncio.Future[Reply]:
        if self._meter.timed:
            return asyncio.ensure_future(self.exchange(question, edit=edit))
        try:
            self._meter.check(new=False)
        except BudgetExceeded as error:
            refused: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
        sent = self.inner.post(question, edit=edit)
        sent.add_done_callback(self._charge)
        return sent

    def _charge(self, sent: asyncio.Future[Reply]) -> None:
        if not sent.cancelled() and sent.exception() is None:
            self._meter.charge(self.member, sent.result().usage)

    async def _send(self, exchange: Exchange) -> Reply:
        return await self.exchange(exchange.question, edit=exchange.edit)

    async def fork(self) -> Session:
        async with self._meter.call(new=False):
            inner = await self.inner.fork()
        return _MeteredSession(inner, self._meter)

    async def close(self) -> None:
        await self.inner.close()
        self._meter.closed(self)
