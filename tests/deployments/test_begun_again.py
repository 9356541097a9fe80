"""A generation over Serve that is begun again at another replica: its cost is told, its budget goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from deployments.calls import Description
from deployments.member import RemoteMember
from ensemble.errors import BudgetExceeded, EnsembleError, MemberLost, OtherVersion
from ensemble.member import Capability, Card
from ensemble.request import Budget, Delta, Event, Finish, Request, Spent, Usage

CARD = Card("remote", frozenset({Capability.GENERATE}), 100)
ASKED = Request(prompt="?", budget=Budget(tokens=10, calls=9, seconds=60))
COST = Spent("leaf", Usage(calls=1, prompt_tokens=4))


class Remote(RemoteMember):
    """Its first replicas spend, and are lost."""

    def __init__(self, *errors: EnsembleError, told: bool = False) -> None:
        handle: Any = None
        super().__init__(handle, Description(CARD, None), again=True)
        self._errors, self._told = list(errors), told
        self.asked: list[Request] = []

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.append(request)
        yield COST
        if self._errors:
            if self._told:
                yield Delta("x")
            raise self._errors.pop(0)
        yield Delta("y")
        yield Finish("stop")


@pytest.mark.parametrize("error", [MemberLost("gone", member="remote"), OtherVersion("another", member="leaf")])
async def test_what_is_left_of_the_budget_goes_on(error: EnsembleError) -> None:
    remote = Remote(error)
    events = [event async for event in remote.generate(ASKED)]
    assert events == [COST, COST, Delta("y"), Finish("stop")]
    first, second = (request.budget for request in remote.asked)
    assert first == ASKED.budget and (second.tokens, second.calls) == (6, 8)
    assert second.seconds is not None and second.seconds < 60


async def test_nothing_is_begun_on_a_budget_that_is_used_up() -> None:
    remote = Remote(*[MemberLost("gone", member="remote")] * 3)
    with pytest.raises(BudgetExceeded) as error:
        [event async for event in remote.generate(ASKED)]
    assert error.value.param == "budget.tokens" and len(remote.asked) == 3


async def test_what_has_been_told_is_not_begun_again() -> None:
    remote = Remote(MemberLost("gone", member="remote"), told=True)
    with pytest.raises(MemberLost):
        [event async for event in remote.generate(ASKED)]
    assert len(remote.asked) == 1
