"""A replica that is lost under an answer: one that nobody has heard of yet is begun again, and both are billed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deployments.gateway import Served, build_app
from ensemble.errors import MemberLost
from ensemble.member import Capability, Card, Member
from ensemble.request import Budget, Delta, Earlier, Event, Finish, Request, Spent, Usage


class Dying(Member):
    """Its first replicas die in mid-answer."""

    def __init__(self, deaths: int, at_fault: str = "dying", seconds: float = 0.0) -> None:
        self.card = Card("dying", frozenset({Capability.GENERATE}), 100)
        self._deaths, self._at_fault, self._seconds = deaths, at_fault, seconds
        self.asked = 0
        self.budgets: list[Budget] = []
        self.earlier: list[Earlier] = []

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked += 1
        self.budgets.append(request.budget)
        self.earlier.append(request.earlier)
        await asyncio.sleep(self._seconds)
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


@pytest.fixture(params=["a model", "an ensemble"])
def served(request: pytest.FixtureRequest) -> Callable[[Dying], FastAPI]:
    """An app over it; an ensemble's replica is at another place than the gateway, and keeps to the budget itself."""
    method = None if request.param == "a model" else "gac"
    return lambda member: build_app({"dying": Served(member, method)})


def test_an_answer_that_is_begun_again_has_what_is_left_of_its_budget(served: Callable[[Dying], FastAPI]) -> None:
    member = Dying(1, seconds=0.05)
    budget = {"calls": 5, "tokens": 10, "cost": 1, "seconds": 9}
    reply = TestClient(served(member)).post("/v1/chat/completions", json=BODY | {"budget": budget})
    assert reply.status_code == 200, reply.text
    first, second = member.budgets
    assert (first.calls, first.tokens) == (5, 10) and (second.calls, second.tokens) == (4, 7)
    assert second.seconds is not None and second.seconds <= 8.95
    assert [earlier.usage for earlier in member.earlier] == [Usage(), Usage(calls=1, prompt_tokens=3)]
    assert member.earlier[1].seconds >= 0.05


@pytest.mark.parametrize(("amount", "limit"), [("calls", 1), ("tokens", 3), ("seconds", 0.04)])
def test_what_has_used_up_its_budget_is_not_begun_again(
    served: Callable[[Dying], FastAPI], amount: str, limit: float
) -> None:
    member = Dying(1, seconds=0.05)
    reply = TestClient(served(member)).post("/v1/chat/completions", json=BODY | {"budget": {amount: limit}})
    assert (reply.status_code, reply.json()["error"]["param"]) == (429, f"budget.{amount}"), reply.text
    assert member.asked == 1
