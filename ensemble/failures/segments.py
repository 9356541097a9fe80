"""One choice in as many segments as it takes: each is a run of the method with the members that are there.

When a member is lost and may be spared, the method runs again over the others, from the text that was told. When it is
back, the segment ends at the next boundary and all go on together. So no method has to know of losses, and each can be
interrupted anywhere; those that write nothing before they decide spare members themselves (``Members.spare``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ensemble.errors import MEMBER_FAILURES, BadAnswer, BudgetExceeded, ConfigurationError, EnsembleError
from ensemble.failures.crew import Crew
from ensemble.failures.written import Written
from ensemble.judges.judge import Judge
from ensemble.member import Member
from ensemble.method import Members, Method
from ensemble.request import Delta, Event, Finish, Request
from ensemble.sampling import reseeded


async def segments(
    method: Method[Any],
    request: Request,
    members: Sequence[Member],
    judge: Judge | None,
    crew: Crew,
    prepared: Any = None,
) -> AsyncGenerator[Event, None]:
    """Events of one choice; text already told is neither retracted nor repeated.

    Args:
        prepared: what the method shares between requests.

    Raises:
        EnsembleError: as the method raised it, where the crew cannot go on without who is at fault.
    """
    written = Written(request)
    while True:
        present = [members[seat] for seat in crew.present]
        rest = await written.rest(present)
        if rest is None:
            yield Finish("length")
            return
        if rest is not request:
            rest = replace(rest, sampling=reseeded(rest.sampling, len(written.text)))
        run = _among(method, members, crew).run(rest, Members(present, judge, crew, request.budget, prepared))
        try:
            async with aclosing(run) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Delta):
                        written.take(event)
                    yield event
                    if isinstance(event, Finish):
                        return
                    if crew.rejoins and written.at_boundary and crew.returned(rest):
                        break
                else:
                    return
        except MEMBER_FAILURES as error:
            if crew.exhausted is not None and isinstance(error, BadAnswer):
                yield Finish("length")
                return
            if not _spared(method, members, crew, error):
                raise
        except BudgetExceeded as error:
            if not crew.settle(error, partial=request.budget.exhausted == "partial"):
                raise
            yield Finish("length")
            return
        written.turned()


def _among(method: Method[Any], members: Sequence[Member], crew: Crew) -> Method[Any]:
    return method if crew.complete else method.among([member.name for member in members], crew.present)


def _spared(method: Method[Any], members: Sequence[Member], crew: Crew, error: EnsembleError) -> bool:
    """Whether the crew goes on, and is one that the method can work with."""
    if not crew.spare(error):
        return False
    try:
        _among(method, members, crew).check([members[seat].card for seat in crew.present])
    except ConfigurationError:
        return False
    return True
