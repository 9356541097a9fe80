"""A member that has no room, such as an ensemble within with a full queue: each policy says what becomes of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import QueueFull
from ensemble.failures.policy import Policy
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Finish, Incident, Request, Spent, Usage
from ensemble.testing import ScriptedMember


class Full(Member):
    """Has no room for the first requests."""

    def __init__(self, refusals: int, retry_after: float = 0.01) -> None:
        self.card = Card("full", frozenset({Capability.GENERATE}), 4096)
        self._refusals, self._retry_after = refusals, retry_after
        self.asked = 0

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.asked += 1
        if self.asked <= self._refusals:
            error = QueueFull("64 requests wait for their turn already; more are not taken on")
            error.retry_after = self._retry_after
            raise error
        yield Spent("full", Usage(calls=1))
        yield Delta("8", {"full": 1.0})
        yield Finish("stop")


def forest(full: Member, **policy: Any) -> Ensemble:
    calm = [ScriptedMember.answering(name, ["7"]) for name in "ab"]
    return Ensemble(
        "e", "agent_forest", [*calm, full], options={"samples": 3, "early_stop": False}, policy=Policy(**policy)
    )


async def test_without_a_policy_the_request_is_to_come_again() -> None:
    with pytest.raises(QueueFull) as refused:
        await forest(Full(9, retry_after=3)).answer(Request.of("?"))
    assert refused.value.retry_after == 3


async def test_degraded_answers_do_without_it_and_others_ask_it_again() -> None:
    full = Full(1)
    ensemble = forest(full, on_loss="degrade", breaker_failures=1, breaker_seconds=60)
    answer = await ensemble.answer(Request.of("?"))
    assert answer.text == "7" and answer.choices[0].incidents == (Incident("dropped", "queue_full", "full"),)
    again = await ensemble.answer(Request.of("?"))
    assert not again.choices[0].incidents and full.asked == 2


async def test_recovery_waits_for_room_as_long_as_it_is_told_to() -> None:
    full = Full(2, retry_after=0.15)
    answer = await forest(full, on_loss="recover", patience=5.0).answer(Request.of("?"))
    assert {i.reason for i in answer.choices[0].incidents} == {"queue_full"} and full.asked == 3


async def test_recovery_has_an_end() -> None:
    full = Full(10**9, retry_after=0.05)
    with pytest.raises(QueueFull):
        await forest(full, on_loss="recover", patience=0.2).answer(Request.of("?"))
    assert 2 <= full.asked <= 8
