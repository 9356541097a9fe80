"""Carrying a route out: one answers, another in its place where it fails before its first text; or several, who vote.

Knows nothing of how the route came about.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from ensemble.after.answers import KEYS, Key, extract
from ensemble.after.fan_out import Candidate, Place, drawn, fan_out
from ensemble.after.votes import Tally, Vote, tallied
from ensemble.before.routing.arms import Arm
from ensemble.before.routing.decision import Route
from ensemble.concurrency import merge
from ensemble.errors import BadAnswer, ContextTooLong, EnsembleError, MemberError, Overloaded
from ensemble.member import Member
from ensemble.method import Members
from ensemble.request import Delta, Event, Finish, Request, Trace, Usage

PASSED_OVER = (MemberError, ContextTooLong, Overloaded)
"""Failures after which another one is asked, as long as nothing has been told."""
_WARM = 1.0
"""Temperature of arms that give several answers, where the request has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voting:
    """How answers of several become one."""

    notion: Literal["exact", "numeric"] = "exact"
    pattern: re.Pattern[str] | None = None

    def key(self, text: str) -> Key | None:
        answer = extract(text, self.pattern)
        return None if answer is None else KEYS[self.notion](answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One arm's answer, for who keeps outcomes."""

    arm: Arm
    usage: Usage
    seconds: float
    propensity: float
    """NaN where it answered in the place of another."""


Told = Callable[[Answered], Iterator[Event]]
"""Makes an event of what an answer has cost; it comes before the answer's end."""
Failed = Callable[[Arm, str], None]
"""Called with who could not answer, and why."""


async def answered(
    request: Request, members: Members, route: Route, voting: Voting, told: Told, failed: Failed
) -> AsyncGenerator[Event, None]:
    """The events of the answer.

    Raises:
        EnsembleError: nobody could answer, or one failed in the middle of its answer.
    """
    voters = route.voters or [route.first]
    if len(voters) > 1 or route.arms[voters[0]].samples > 1:
        election = _Election(request, members, route, voting, failed)
        async with aclosing(election.events(voters, told)) as events:
            async for event in events:
                yield event
        if election.won:
            return
    out = {route.arms[place].seat for place in voters} if route.voters else set()
    async with aclosing(_one(request, members, route, told, failed, out)) as events:
        async for event in events:
            yield event


async def _one(
    request: Request, members: Members, route: Route, told: Told, failed: Failed, out: set[int]
) -> AsyncGenerator[Event, None]:
    """The answer of the first that can answer.

    Args:
        out: seats of members that could not.
    """
    seats = [arm.seat for arm in route.arms]
    left = [place for place in route.order if seats[place] not in out] or route.order[:1]
    while True:
        place = left[0]
        left = [other for other in left if seats[other] != seats[place]]
        begun = False
        try:
            async with aclosing(_written(request, members, route, place, told)) as events:
                async for event in events:
                    begun = begun or isinstance(event, Delta)
                    yield event
            return
        except PASSED_OVER as error:
            if begun or not left:
                raise
            _note(error, route.arms[place], members, failed)


async def _written(
    request: Request, members: Members, route: Route, place: int, told: Told
) -> AsyncGenerator[Event, None]:
    arm = route.arms[place]
    member = members[arm.seat]
    began, before = time.monotonic(), member.spent()
    finish = None
    async with aclosing(member.generate(arm.asked(request))) as events:
        async for event in events:
            # The end is told when everything has been counted.
            if isinstance(event, Finish):
                finish = event
            else:
                yield event
    if finish is None:
        raise BadAnswer(f"{member.name} ended before its answer did", member=member.name, reason="unfinished")
    used, seconds = _less(member.spent(), before), time.monotonic() - began
    for event in told(Answered(arm=arm, usage=used, seconds=seconds, propensity=route.propensity_of(place))):
        yield event
    yield finish


def _less(after: Usage, before: Usage) -> Usage:
    return Usage(
        after.calls - before.calls,
        after.prompt_tokens - before.prompt_tokens,
        after.completion_tokens - before.completion_tokens,
        after.cost - before.cost,
    )


def _note(error: EnsembleError, arm: Arm, members: Members, failed: Failed) -> None:
    members.passed_over(error, members.names[arm.seat])
    failed(arm, error.code)


class _Election:
    """Several answers and the vote over them."""

    def __init__(self, request: Request, members: Members, route: Route, voting: Voting, failed: Failed) -> None:
        self._request, self._members, self._route = request, members, route
        self._voting, self._failed = voting, failed
        self.won = False
        """Whether there is an answer."""

    async def events(self, voters: Sequence[int], told: Told) -> AsyncGenerator[Event, None]:
        """Nothing, where none of them has given an answer that counts."""
        began, spent = time.monotonic(), {place: self._member(place).spent() for place in voters}
        async with aclosing(merge([self._given(place) for place in voters])) as arriving:
            given = {(place, i): candidate async for place, i, candidate in arriving}
        tallies = tallied([self._vote(at, candidate) for at, candidate in given.items()])
        self.won = bool(tallies)
        if not tallies:
            return
        winner = given[tallies[0].first]
        place = tallies[0].first[0]
        for event in self._told(winner, tallies):
            yield event
        used, seconds = _less(self._member(place).spent(), spent[place]), time.monotonic() - began
        arm = self._route.arms[place]
        for event in told(Answered(arm=arm, usage=used, seconds=seconds, propensity=self._route.propensity_of(place))):
            yield event
        yield Finish(winner.finish)

    def _member(self, place: int) -> Member:
        member: Member = self._members[self._route.arms[place].seat]
        return member

    def _vote(self, at: Place, candidate: Candidate) -> Vote:
        """Answers of one arm share its votes."""
        weights = self._route.weights
        whole = 1.0 if weights is None else float(weights[at[0]])
        key = self._voting.key(self._request.partial + candidate.text)
        return Vote(at, key, whole / self._route.arms[at[0]].samples)

    async def _given(self, place: int) -> AsyncGenerator[tuple[int, int, Candidate], None]:
        """Answers of one arm, until its member fails."""
        arm = self._route.arms[place]
        sampling = self._request.sampling
        if arm.samples > 1:
            sampling = drawn(sampling, _WARM, 1.0)
        counts = [arm.samples * (seat == arm.seat) for seat in range(len(self._members))]
        try:
            async with aclosing(fan_out(arm.asked(self._request), self._members, counts, sampling)) as candidates:
                async for candidate in candidates:
                    yield place, candidate.place[1], candidate
        except PASSED_OVER as error:
            _note(error, arm, self._members, self._failed)

    def _told(self, winner: Candidate, tallies: Sequence[Tally]) -> Iterator[Event]:
        names = [arm.name for arm in self._route.arms]
        total = float(tallies[0].weight)
        credits: dict[str, float] = {}
        for vote in tallies[0].votes:
            name = self._member(vote.place[0]).name
            credits[name] = credits.get(name, 0.0) + vote.weight / total
        yield from winner.traces
        shown = [{"answer": str(t.key), "weight": float(t.weight), "members": t.by_name(names)} for t in tallies]
        yield Trace("vote", {"tally": shown, "elected": names[tallies[0].first[0]]})
        tokens = tuple(token for delta in winner.deltas for token in delta.tokens)
        yield Delta(winner.text, credits, tokens)
