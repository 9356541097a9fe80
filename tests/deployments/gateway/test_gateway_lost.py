"""A replica that is lost under an answer: one that nobody has heard of yet is begun again, and both are billed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ensemble.errors import MemberLost
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Finish, Request, Spent, Usage


class Dying(Member):
    """Its first replicas die in mid-answer."""

    def __init__(self, deaths: int, at_fault: str = "dying") -> None:
        self.card = Card("dying", frozenset({Capability.GENERATE}), 100)
        self._deaths, self._at_fault = deaths, at_fault
        self.asked = 0

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked += 1
        yield Spent("dying", Usage(calls=1, prompt_tokens=3))
        yield Delta("wh", {"dying": 1.0})
        if self.asked <= self._deaths:
            raise MemberLost("a replica was lost", member=self._at_fault)
        yield Delta("ole", {"dying": 1.0})
        yield Finish("stop")


BODY: dict[str, Any] = {"model": "dying", "messages": [{"role": "user", "content": "?"}]}


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_a_whole_answer_is_begun_again(serve: Any, deaths: int) -> None:
    with serve({"dying": Dying(deaths)}) as gateway:
        reply = gateway.post(BODY)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"] == "whole"
    assert reply.json()["usage"]["members"]["dying"]["calls"] == deaths + 1


@pytest.mark.parametrize(
    ("member", "fields"),
    [(Dying(9), {}), (Dying(1, at_fault="its member"), {}), (Dying(1), {"stream": True})],
    ids=["lost again and again", "a member is lost, not who was asked", "the beginning has been told"],
)
def test_what_cannot_be_begun_again_ends_typed(serve: Any, member: Dying, fields: dict[str, Any]) -> None:
    with serve({"dying": member}) as gateway:
        reply = gateway.post(BODY | fields)
    assert '"code":"member_lost"' in reply.text
    assert member.asked == (3 if member._deaths == 9 else 1)
