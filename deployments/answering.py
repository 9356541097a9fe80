"""What one HTTP request asks for, as one stream of events: several prompts at once, within a budget, begun again where
that is of use.

Knows no HTTP, and of what answers only that it is a member.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from ensemble.concurrency import merge
from ensemble.errors import BadAnswer, BudgetExceeded, EnsembleError, MemberLost
from ensemble.member import Member
from ensemble.meter import Meter
from ensemble.request import Budget, Event, Finish, Incident, Request, Spent, Usage

_ATTEMPTS = 3
"""Replicas that may be lost, one after the other, under an answer of which nothing has been told."""


async def answered(member: Member, requests: Sequence[Request], *, keeps: bool) -> AsyncGenerator[Event, None]:
    """Events of all requests as they come, with their choices numbered through.

    Args:
        keeps: whether the member keeps to a request's budget itself, as ensembles do; any other is kept to it here.

    Raises:
        BadAnswer: the member ended before its answers did.
    """
    asked = _generated if keeps else _metered
    streams = [_numbered(asked(member, request), i * request.n) for i, request in enumerate(requests)]
    unfinished = sum(request.n for request in requests)
    async with aclosing(merge(streams) if len(streams) > 1 else streams[0]) as events:
        async for event in events:
            unfinished -= isinstance(event, Finish)
            yield event
    if unfinished:
        raise BadAnswer("the model ended before its answer did", member=member.name, reason="unfinished")


class Whole(Member):
    """A member of whose answers nothing but usage is told before they are complete, so that one whose replica is lost
    can be begun again: with what is left of its budget."""

    def __init__(self, inner: Member) -> None:
        self.card = inner.card
        self._inner = inner

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        time = asyncio.get_running_loop().time
        began, spent, left = time(), Usage(), request
        for attempt in range(_ATTEMPTS):
            told: list[Event] = []
            try:
                async with aclosing(_generated(self._inner, left)) as events:
                    async for event in events:
                        if isinstance(event, Spent):
                            spent += event.usage
                            yield event
                        else:
                            told.append(event)
                break
            except MemberLost as error:
                # When it is one of its members that was lost, an ensemble has decided already what follows.
                if error.member != self.name or attempt + 1 == _ATTEMPTS:
                    raise
                left = request.again(spent, time() - began)
        for event in told:
            yield event


async def _generated(member: Member, request: Request) -> AsyncGenerator[Event, None]:
    async with aclosing(member.generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            yield event


async def _metered(model: Member, request: Request) -> AsyncGenerator[Event, None]:
    """A model's events until its budget is used up."""
    if request.budget == Budget():
        async with aclosing(_generated(model, request)) as events:
            async for event in events:
                yield event
        return
    meter = Meter(request.budget)
    (member,) = meter.wrap([model])
    unfinished = dict.fromkeys(range(request.n))
    try:
        async with aclosing(_generated(member, request)) as events:
            async for event in events:
                for spent in meter.drain():
                    yield spent
                if isinstance(event, Finish):
                    unfinished.pop(event.choice, None)
                yield event
    except EnsembleError as error:
        for spent in meter.drain():
            yield spent
        if request.budget.exhausted != "partial" or not isinstance(error, BudgetExceeded):
            raise
        for event in cut_short(error, unfinished):
            yield event
    for spent in meter.drain():
        yield spent


def cut_short(error: BudgetExceeded, choices: Iterable[int]) -> Iterator[Event]:
    """The end of an answer that the budget ends early, where what there is of it is to be the answer."""
    for choice in choices:
        yield Incident("exhausted", str(error.param), choice=choice)
        yield Finish("length", choice)


async def _numbered(events: AsyncGenerator[Event, None], first: int) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        async for event in events:
            yield event if isinstance(event, Spent) or not first else replace(event, choice=event.choice + first)
