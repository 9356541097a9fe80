"""What was spent is told exactly once: by an event, or to whoever keeps the books, however a request ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from importlib import import_module
from typing import Any

import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import MemberLost
from ensemble.member import Capability, Session
from ensemble.method import Members, Method, Options, Stage
from ensemble.request import Delta, Event, Finish, Incident, Request, Spent
from ensemble.testing import TinyMember

methods = import_module("ensemble.method")


class Step(Method[Options]):
    """All members take two steps before each piece of text; in the end it fails as the request says, one step later."""

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        sessions = [await member.start(request) for member in members]
        for _ in range(4):
            for session in sessions * 2:
                await session.exchange()
            yield Delta("x", {members.names[0]: 1.0})
        last = await members[2].start(request)
        await last.exchange()
        if request.question == "bug":
            raise ZeroDivisionError("of a plug-in")
        if request.question == "loss":
            raise MemberLost("gone")
        yield Finish("stop")


@pytest.fixture(autouse=True)
def stepping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(methods, "_registry", {**methods.methods()})
    needs = {Capability.GENERATE, Capability.SESSIONS}
    methods.method("stepping", stage=Stage.TOKEN, paper="", needs=needs, options=Options)(Step)
    yield


class Counting(TinyMember):
    """Counts its sessions."""

    started = 0

    async def start(self, request: Request) -> Session:
        self.started += 1
        return await super().start(request)


def ensemble(untold: list[Any], delay: float = 0.0) -> tuple[Ensemble, list[Counting]]:
    members = [Counting(name, seed=seed, delay=delay) for seed, name in enumerate("abc")]
    return Ensemble("e", "stepping", members, untold=untold.append), members


def calls(events: list[Any]) -> Counter[str]:
    """Calls by member."""
    told: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Spent):
            told[event.member] += event.usage.calls
    return told


@pytest.mark.parametrize(("question", "error"), [("bug", ZeroDivisionError), ("loss", MemberLost)])
async def test_a_request_that_fails_tells_what_it_has_cost(question: str, error: type[Exception]) -> None:
    untold: list[Spent | Incident] = []
    tried, members = ensemble(untold)
    events: list[Event] = []
    with pytest.raises(error):
        async for event in tried.generate(Request.of(question)):
            events.append(event)
    assert calls(events) == {member.name: member.started for member in members} and not untold


@pytest.mark.parametrize("taken", range(8))
@pytest.mark.parametrize("question", ["?", "loss"])
async def test_whoever_leaves_between_two_events_leaves_nothing_untold(question: str, taken: int) -> None:
    untold: list[Spent | Incident] = []
    left, members = ensemble(untold)
    events: list[Event] = []
    async with aclosing(left.generate(Request.of(question))) as stream:
        async for event in stream:
            events.append(event)
            if len(events) > taken:
                break
    assert calls([*events, *untold]) == {member.name: member.started for member in members}
    assert not any(member.open_sessions for member in members)


async def test_whoever_leaves_within_a_step_leaves_nothing_untold() -> None:
    untold: list[Spent | Incident] = []
    left, members = ensemble(untold, delay=0.01)
    events: list[Event] = []

    async def read() -> None:
        async for event in left.generate(Request.of("?")):
            events.append(event)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.035)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert calls([*events, *untold]) == {member.name: member.started for member in members}
    assert not any(member.open_sessions for member in members)
